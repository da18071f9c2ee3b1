/* What dataset_prepare.c writes and dataset_h5.c reads: the names in the file, and its limits. Private to `data`. */
#ifndef FB3_DATASET_FILE_H
#define FB3_DATASET_FILE_H

#include "fb3/dataset.h"
#include "fb3/h5.h"

#define FB3_DATASET_FORMAT "fb3-dist data set 1"

enum {
    FB3_DATASET_MAX_ID_BYTES = 1024,
    FB3_DATASET_MAX_TEXT_BYTES = 1 << 20, /* of a text attribute */
    FB3_DATASET_MAX_VOCABULARY = 1 << 24,
    FB3_DATASET_MAX_LENGTH = 1 << 20,
};

/* One of the files of a data set, whose samples come after those of the files before it. */
struct fb3_dataset_file {
    char *path;
    hid_t file, tokens, labels, ids, folds; /* folds: H5I_INVALID_HID where there are none */
    int64_t rows, tokens_count;
    int64_t first_row, first_token; /* in the data set */
    size_t id_bytes;                /* of an id in the file, padded with zeros */
};

/* The type of an id of so many bytes, padded with zeros; H5I_INVALID_HID: cannot be made. */
hid_t fb3_dataset_id_type(size_t bytes);
/* Labels of neighbouring rows of one file are looked at in blocks of this size. */
enum { FB3_DATASET_BLOCK_BYTES = 4 << 20 };

/* The sha256 of several sources: of their own, one after the other; of one: it. */
fb3_status fb3_dataset_sources_sha256(const char (*sha256)[FB3_SHA256_HEX], int count, char hex[FB3_SHA256_HEX]);

/* The label columns as the text of an attribute, one a line; and back. */
char *fb3_dataset_join_columns(const fb3_strings *columns);
fb3_status fb3_dataset_split_columns(fb3_strings *columns, const char *text);

/* What the writer needs besides the source. */
typedef struct fb3_dataset_header {
    const char *source_sha256;
    const char *options_text; /* equal texts: the same data set from the same source */
    int64_t rows, longest_id; /* of the survey */
} fb3_dataset_header;

/* Tokenises the source into a new file at `path` (not atomic: the caller renames it). Fills in the parts of the report
 * that count tokens and stores the report. */
fb3_status fb3_dataset_write(const char *path, const fb3_strings *csv_paths, const fb3_tokenizer *tokenizer,
                             const fb3_dataset_options *options, const fb3_dataset_header *header,
                             fb3_dataset_report *report);

fb3_status fb3_dataset_report_write(hid_t file, const fb3_dataset_report *report, int targets);
fb3_status fb3_dataset_report_read(hid_t file, fb3_dataset_report *report, int targets);

#endif
