/* Writing the page: markup that is both HTML and well-formed XML. Every text that comes from a file goes through
 * page_text(), which escapes it. Private to `report`. */
#ifndef FB3_REPORT_PAGE_H
#define FB3_REPORT_PAGE_H

#include "fb3/status.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct page {
    FILE *out;
    int ids; /* given out so far, for aria-labelledby */
} page;

/* Builds a page in memory (it is small), which then replaces the file that was there, whole. */
fb3_status page_publish(const char *path, void (*write)(page *p, const void *context), const void *context);

void page_begin(page *p, const char *title);
void page_end(page *p);

/* Markup of ours, as printf. Never a text from a file. */
void page_markup(page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Any text, escaped; bytes that are not UTF-8 and characters that XML does not have are U+FFFD. */
void page_text(page *p, const char *text);
/* At most `characters` of it, with an ellipsis where it was cut. */
void page_text_cut(page *p, const char *text, int characters);

/* A number as text: `decimals` behind the point, thousands apart, or below 0 the four leading digits; an en dash where
 * there is none (NaN). */
enum { PAGE_NUMBER_BYTES = 48 };
const char *page_number(char text[PAGE_NUMBER_BYTES], double value, int decimals);
/* "1 h 02 min", "3 min 40 s", "12.3 s" */
const char *page_duration(char text[PAGE_NUMBER_BYTES], double seconds);
/* "12.3 MB" */
const char *page_bytes(char text[PAGE_NUMBER_BYTES], double bytes);

/* A section with a heading; `id` is a word of ours, the contents link to it. */
void page_section_begin(page *p, const char *id, const char *title);
void page_section_end(page *p);

/* A figure with a heading and, if not NULL, a sentence about it. */
void page_figure_begin(page *p, const char *title, const char *note);
void page_figure_end(page *p);
void page_details_begin(page *p, const char *summary);
void page_details_end(page *p);

/* A table that scrolls by itself where the page is narrow. */
void page_table_begin(page *p, const char *caption);
void page_head_begin(page *p);
void page_head(page *p, const char *text);
void page_head_text(page *p, const char *text); /* above page_cell_text() */
void page_head_end(page *p);
void page_row_begin(page *p, const char *name);
void page_cell_number(page *p, double value, int decimals);
void page_cell_text(page *p, const char *text);
void page_row_end(page *p);
void page_table_end(page *p);

#endif
