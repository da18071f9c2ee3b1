#include "page.h"

#include "fb3/file.h"
#include "fb3/utf8.h"
#include "style.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Nothing is fetched and nothing runs, whatever a text in a file would like: the browser is told so, too. */
static const char HEAD[] =
    "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
    "<meta name=\"color-scheme\" content=\"light dark\"/>\n<meta name=\"generator\" content=\"fb3-dist\"/>\n";

fb3_status page_publish(const char *path, void (*write)(page *p, const void *context), const void *context)
{
    char *text = NULL;
    size_t bytes = 0;
    page p = {.out = open_memstream(&text, &bytes)};
    FB3_REQUIRE(p.out, FB3_FAILED, "out of memory for a page");
    write(&p, context);
    bool failed = ferror(p.out) != 0;
    if (fclose(p.out) != 0) failed = true;
    fb3_status status = failed ? fb3_fail(FB3_FAILED, "out of memory for a page")
                               : fb3_file_write_shared(path, text, bytes); /* a run and its user may both write it */
    free(text);
    return status;
}

void page_begin(page *p, const char *title)
{
    fputs(HEAD, p->out);
    fputs("<title>", p->out);
    page_text(p, title);
    fprintf(p->out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n", STYLE);
}

void page_end(page *p)
{
    fputs("</body>\n</html>\n", p->out);
}

void page_markup(page *p, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(p->out, format, arguments);
    va_end(arguments);
}

/* --- texts -------------------------------------------------------------------------------------------------------- */

/* XML 1.0, production Char; and without the controls that turn the direction of what follows. */
static bool may_stand(uint32_t code)
{
    if (code < ' ') return code == '\t' || code == '\n' || code == '\r';
    if (code >= 0x202A && code <= 0x202E) return false;
    if (code >= 0x2066 && code <= 0x2069) return false;
    return !(code >= 0x7F && code <= 0x9F) && code != 0xFFFE && code != 0xFFFF;
}

static void write_character(FILE *out, const char *text, int bytes, uint32_t code)
{
    switch (code) {
    case '&':
        fputs("&amp;", out);
        break;
    case '<':
        fputs("&lt;", out);
        break;
    case '>':
        fputs("&gt;", out);
        break;
    case '"':
        fputs("&quot;", out);
        break;
    case '\'':
        fputs("&#39;", out);
        break;
    default:
        fwrite(text, 1, (size_t)bytes, out);
    }
}

static void write_text(FILE *out, const char *text, size_t characters)
{
    size_t left = strlen(text);
    for (; left > 0 && characters > 0; characters--) {
        uint32_t code;
        int bytes = fb3_utf8_decode(text, left, &code);
        if (bytes == 0 || !may_stand(code)) {
            fputs("\xEF\xBF\xBD", out);
        } else {
            write_character(out, text, bytes, code);
        }
        text += bytes > 0 ? bytes : 1;
        left -= (size_t)(bytes > 0 ? bytes : 1);
    }
    if (left > 0) fputs("\xE2\x80\xA6", out);
}

void page_text(page *p, const char *text)
{
    write_text(p->out, text, SIZE_MAX);
}

void page_text_cut(page *p, const char *text, int characters)
{
    write_text(p->out, text, (size_t)characters);
}

/* --- numbers ------------------------------------------------------------------------------------------------------ */

const char *page_number(char text[PAGE_NUMBER_BYTES], double value, int decimals)
{
    enum { MOST_DIGITS = 15 };
    char plain[PAGE_NUMBER_BYTES];
    if (!isfinite(value)) return strcpy(text, "\xE2\x80\x93");
    if (decimals < 0 || fabs(value) >= pow(10, MOST_DIGITS) ||
        (value != 0 && decimals > 0 && fabs(value) < 0.5 * pow(10, -decimals))) {
        snprintf(text, PAGE_NUMBER_BYTES, "%.4g", value);
        return text;
    }
    snprintf(plain, sizeof plain, "%.*f", decimals, value);
    size_t digits = strspn(plain + (*plain == '-'), "0123456789") + (*plain == '-'), at = 0;
    for (size_t i = 0; plain[i]; i++) {
        bool apart = i > 0 && i < digits && (digits - i) % 3 == 0 && plain[i - 1] != '-';
        if (apart) text[at++] = ',';
        text[at++] = plain[i];
    }
    text[at] = 0;
    return text;
}

const char *page_duration(char text[PAGE_NUMBER_BYTES], double seconds)
{
    if (!isfinite(seconds)) return strcpy(text, "\xE2\x80\x93");
    if (seconds < 100) {
        snprintf(text, PAGE_NUMBER_BYTES, "%.1f s", seconds);
    } else if (seconds < 6000) {
        snprintf(text, PAGE_NUMBER_BYTES, "%.0f min %02.0f s", floor(seconds / 60), floor(fmod(seconds, 60)));
    } else {
        snprintf(text, PAGE_NUMBER_BYTES, "%.0f h %02.0f min", floor(seconds / 3600), floor(fmod(seconds, 3600) / 60));
    }
    return text;
}

const char *page_bytes(char text[PAGE_NUMBER_BYTES], double bytes)
{
    static const char *const UNIT[] = {"bytes", "kB", "MB", "GB", "TB"};
    int unit = 0;
    if (!isfinite(bytes)) return strcpy(text, "\xE2\x80\x93");
    for (; bytes >= 1000 && unit < 4; unit++) bytes /= 1000;
    snprintf(text, PAGE_NUMBER_BYTES, "%.*f %s", unit > 0 && bytes < 100 ? 1 : 0, bytes, UNIT[unit]);
    return text;
}

/* --- structure ---------------------------------------------------------------------------------------------------- */

void page_section_begin(page *p, const char *id, const char *title)
{
    page_markup(p, "<section id=\"%s\" aria-labelledby=\"%s-title\">\n<h2 id=\"%s-title\">", id, id, id);
    page_text(p, title);
    page_markup(p, "</h2>\n");
}

void page_section_end(page *p)
{
    page_markup(p, "</section>\n");
}

void page_figure_begin(page *p, const char *title, const char *note)
{
    page_markup(p, "<figure>\n<h3>");
    page_text(p, title);
    page_markup(p, "</h3>\n");
    if (!note) return;
    page_markup(p, "<p class=\"note\">");
    page_text(p, note);
    page_markup(p, "</p>\n");
}

void page_figure_end(page *p)
{
    page_markup(p, "</figure>\n");
}

void page_details_begin(page *p, const char *summary)
{
    page_markup(p, "<details><summary>");
    page_text(p, summary);
    page_markup(p, "</summary>\n");
}

void page_details_end(page *p)
{
    page_markup(p, "</details>\n");
}

void page_table_begin(page *p, const char *caption)
{
    int id = ++p->ids;
    page_markup(
        p, "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-labelledby=\"n%d\">\n<table><caption id=\"n%d\">",
        id, id);
    page_markup(p, "<span>");
    page_text(p, caption);
    page_markup(p, "</span></caption>\n");
}

void page_head_begin(page *p)
{
    page_markup(p, "<thead><tr>");
}

void page_head(page *p, const char *text)
{
    page_markup(p, "<th scope=\"col\">");
    page_text(p, text);
    page_markup(p, "</th>");
}

void page_head_text(page *p, const char *text)
{
    page_markup(p, "<th scope=\"col\" class=\"t\">");
    page_text(p, text);
    page_markup(p, "</th>");
}

void page_head_end(page *p)
{
    page_markup(p, "</tr></thead>\n<tbody>\n");
}

void page_row_begin(page *p, const char *name)
{
    page_markup(p, "<tr><th scope=\"row\"><bdi>");
    page_text(p, name);
    page_markup(p, "</bdi></th>");
}

void page_cell_number(page *p, double value, int decimals)
{
    char text[PAGE_NUMBER_BYTES];
    page_markup(p, "<td>%s</td>", page_number(text, value, decimals));
}

void page_cell_text(page *p, const char *text)
{
    page_markup(p, "<td class=\"t\"><bdi>");
    page_text(p, text);
    page_markup(p, "</bdi></td>");
}

void page_row_end(page *p)
{
    page_markup(p, "</tr>\n");
}

void page_table_end(page *p)
{
    page_markup(p, "</tbody></table>\n</div>\n");
}
