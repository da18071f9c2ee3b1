/* CSV files -> data set, or the data set that is there already: it is reused when source, tokenizer and options are the
 * same and every byte of it still passes its checks. Else the source is surveyed, tokenised into a temporary file and
 * that is renamed, so `h5_path` is always complete (DESIGN 5.2). */
#include "dataset_file.h"
#include "source_csv.h"

#include "fb3/file.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char HDF5_SIGNATURE[] = "\211HDF\r\n\032\n";
enum { SIGNATURE_BYTES = sizeof HDF5_SIGNATURE - 1, MIN_LENGTH = 3 };

/* Everything besides source and tokenizer that decides what is in the file. Caller frees. */
static char *describe_options(const fb3_dataset_options *options)
{
    char *columns = fb3_dataset_join_columns(options->label_columns);
    char *text = NULL;
    if (columns && options->max_samples == FB3_UNSET_INT) {
        text = fb3_format("id_column: %s\ntext_column: %s\nfold_column: %s\nmax_length: %d\nmax_samples:\n%s",
                          options->id_column, options->text_column, options->fold_column ? options->fold_column : "",
                          options->max_length, columns);
    } else if (columns) {
        text = fb3_format("id_column: %s\ntext_column: %s\nfold_column: %s\nmax_length: %d\nmax_samples: %lld\n%s",
                          options->id_column, options->text_column, options->fold_column ? options->fold_column : "",
                          options->max_length, (long long)options->max_samples, columns);
    }
    free(columns);
    return text;
}

static bool begins_as_hdf5(const char *path)
{
    char start[SIGNATURE_BYTES];
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    size_t bytes = fread(start, 1, sizeof start, file);
    (void)fclose(file);
    return bytes == sizeof start && memcmp(start, HDF5_SIGNATURE, sizeof start) == 0;
}

/* A file of another kind is never overwritten. A data set that cannot be read any more is. */
static fb3_status check_target(const char *h5_path)
{
    if (!fb3_file_exists(h5_path)) return FB3_OK;
    FB3_REQUIRE(begins_as_hdf5(h5_path), FB3_INPUT,
                "%s is there and is not a data set; remove it or choose another name for the data set", h5_path);
    hid_t file;
    char *format = NULL;
    if (fb3_h5_open(&file, h5_path) != FB3_OK) return FB3_OK;
    fb3_status status = fb3_h5_get_text(file, "format", FB3_DATASET_MAX_TEXT_BYTES, &format);
    bool foreign = status != FB3_OK || strcmp(format, FB3_DATASET_FORMAT) != 0;
    free(format);
    (void)fb3_h5_close(file, h5_path);
    FB3_REQUIRE(!foreign, FB3_INPUT,
                "%s is there and is another kind of HDF5 file; remove it or choose another name for the data set",
                h5_path);
    return FB3_OK;
}

static bool attribute_is(hid_t file, const char *name, const char *expected)
{
    char *text = NULL;
    bool same = fb3_h5_get_text(file, name, FB3_DATASET_MAX_TEXT_BYTES, &text) == FB3_OK && strcmp(text, expected) == 0;
    free(text);
    return same;
}

const char *fb3_dataset_tokenizer_sha256(const fb3_tokenizer *tokenizer)
{
    static const char NONE[FB3_SHA256_HEX] = "0000000000000000000000000000000000000000000000000000000000000000";
    return tokenizer ? fb3_tokenizer_sha256(tokenizer) : NONE;
}

/* Any failure here only means that the file is made anew. */
static bool reuse(const char *h5_path, const fb3_tokenizer *tokenizer, const fb3_dataset_header *header,
                  fb3_dataset_report *report)
{
    bool good = false;
    fb3_dataset *dataset = NULL;
    fb3_node_memory memory;
    if (!fb3_file_exists(h5_path) || fb3_node_memory_private(&memory) != FB3_OK) return false;
    if (fb3_dataset_open(&dataset, h5_path, &memory) == FB3_OK) {
        hid_t file = dataset->file->file;
        good = strcmp(dataset->source_sha256, header->source_sha256) == 0 &&
               strcmp(dataset->tokenizer_sha256, fb3_dataset_tokenizer_sha256(tokenizer)) == 0 &&
               attribute_is(file, "options", header->options_text) && fb3_dataset_verify(dataset) == FB3_OK &&
               fb3_dataset_report_read(file, report, dataset->targets) == FB3_OK;
    }
    fb3_dataset_close(dataset);
    fb3_node_memory_private_free(&memory);
    return good;
}

static fb3_status make(const fb3_strings *csv_paths, const char *h5_path, const fb3_tokenizer *tokenizer,
                       const fb3_dataset_options *options, fb3_dataset_header *header, fb3_dataset_report *report)
{
    fb3_survey survey;
    FB3_TRY(fb3_source_survey(csv_paths, options, &survey, report));
    header->rows = survey.rows;
    header->longest_id = survey.longest_id;

    char *temporary = fb3_file_temporary(h5_path);
    FB3_REQUIRE(temporary, FB3_FAILED, "out of memory for a file name");
    fb3_status status = fb3_dataset_write(temporary, csv_paths, tokenizer, options, header, report);
    if (status == FB3_OK) {
        status = fb3_file_publish(temporary, h5_path);
    } else {
        (void)unlink(temporary);
    }
    free(temporary);
    return status;
}

static fb3_status hash_sources(const fb3_strings *csv_paths, char hex[FB3_SHA256_HEX])
{
    fb3_status status = FB3_OK;
    char(*sha256)[FB3_SHA256_HEX] = calloc((size_t)csv_paths->count, sizeof *sha256);
    FB3_REQUIRE(sha256, FB3_FAILED, "out of memory for the hashes of %d files", csv_paths->count);
    for (int i = 0; i < csv_paths->count; i++) FB3_TRY_GOTO(fb3_sha256_file(csv_paths->item[i], sha256[i]), done);
    status = fb3_dataset_sources_sha256(sha256, csv_paths->count, hex);
done:
    free(sha256);
    return status;
}

fb3_status fb3_dataset_prepare(const fb3_strings *csv_paths, const char *h5_path, const fb3_tokenizer *tokenizer,
                               const fb3_dataset_options *options, fb3_dataset_report *report)
{
    char source_sha256[FB3_SHA256_HEX];
    *report = (fb3_dataset_report){0};
    FB3_REQUIRE(options->max_length >= MIN_LENGTH && options->max_length <= FB3_DATASET_MAX_LENGTH, FB3_INPUT,
                "max_length is %d, but must lie between %d and %d", options->max_length, MIN_LENGTH,
                FB3_DATASET_MAX_LENGTH);
    FB3_TRY(check_target(h5_path));
    FB3_TRY(hash_sources(csv_paths, source_sha256));
    char *text = describe_options(options);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory for the options of a data set");

    fb3_status status = FB3_OK;
    fb3_dataset_header header = {.source_sha256 = source_sha256, .options_text = text};
    if (reuse(h5_path, tokenizer, &header, report)) {
        report->reused = true;
    } else {
        *report = (fb3_dataset_report){0};
        status = make(csv_paths, h5_path, tokenizer, options, &header, report);
    }
    free(text);
    return status;
}
