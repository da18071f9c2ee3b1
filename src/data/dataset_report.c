/* What was noticed in a source: kept in the data set (group /report), so that a run that reuses the file warns as the
 * run that made it did. */
#include "dataset_file.h"

#include "fb3/log.h"
#include <stdlib.h>
#include <string.h>

typedef struct counter {
    const char *name;
    size_t field; /* where in fb3_dataset_report */
} counter;

static const counter COUNTERS[] = {
    {"samples", offsetof(fb3_dataset_report, samples)},
    {"truncated_samples", offsetof(fb3_dataset_report, truncated_samples)},
    {"truncated_tokens", offsetof(fb3_dataset_report, truncated_tokens)},
    {"total_tokens", offsetof(fb3_dataset_report, total_tokens)},
    {"duplicate_texts", offsetof(fb3_dataset_report, duplicate_texts)},
};
enum { COUNTERS_COUNT = sizeof COUNTERS / sizeof *COUNTERS };

static int64_t *field_of(const fb3_dataset_report *report, const counter *c)
{
    return (int64_t *)((char *)report + c->field);
}

fb3_status fb3_dataset_report_write(hid_t file, const fb3_dataset_report *report, int targets)
{
    fb3_status status = FB3_OK;
    hsize_t dims[1] = {(hsize_t)targets};
    uint8_t constant[FB3_MAX_TARGETS] = {0}; // [Y]
    for (int y = 0; y < targets; y++) constant[y] = report->constant[y];
    hid_t group;
    FB3_TRY(fb3_h5_create_group(&group, file, "report"));
    for (int i = 0; i < COUNTERS_COUNT; i++) {
        FB3_TRY_GOTO(fb3_h5_set_int(group, COUNTERS[i].name, *field_of(report, &COUNTERS[i])), done);
    }
    FB3_TRY_GOTO(fb3_h5_set_int(group, "longest", report->longest), done);
    FB3_TRY_GOTO(fb3_h5_write(group, "out_of_range", H5T_NATIVE_INT64, 1, dims, report->out_of_range), done);
    FB3_TRY_GOTO(fb3_h5_write(group, "constant", H5T_NATIVE_UINT8, 1, dims, constant), done);
done:
    (void)H5Gclose(group);
    return status;
}

fb3_status fb3_dataset_report_read(hid_t file, fb3_dataset_report *report, int targets)
{
    fb3_status status = FB3_OK;
    hsize_t dims[1] = {(hsize_t)targets};
    uint8_t constant[FB3_MAX_TARGETS] = {0}; // [Y]
    int64_t longest = 0;
    hid_t group;
    FB3_TRY(fb3_h5_open_group(&group, file, "report"));
    for (int i = 0; i < COUNTERS_COUNT; i++) {
        FB3_TRY_GOTO(fb3_h5_get_int(group, COUNTERS[i].name, field_of(report, &COUNTERS[i])), done);
    }
    FB3_TRY_GOTO(fb3_h5_get_int(group, "longest", &longest), done);
    FB3_REQUIRE_GOTO(longest >= 0 && longest <= INT32_MAX, done, FB3_INPUT, "/report has an impossible length");
    FB3_TRY_GOTO(fb3_h5_read(group, "out_of_range", H5T_NATIVE_INT64, 1, dims, report->out_of_range), done);
    FB3_TRY_GOTO(fb3_h5_read(group, "constant", H5T_NATIVE_UINT8, 1, dims, constant), done);
    report->longest = (int)longest;
    for (int y = 0; y < targets; y++) report->constant[y] = constant[y] != 0;
done:
    (void)H5Gclose(group);
    return status;
}

fb3_status fb3_dataset_read_report(const fb3_dataset *dataset, fb3_dataset_report *report)
{
    *report = (fb3_dataset_report){0};
    FB3_TRY(fb3_dataset_report_read(dataset->file->file, report, dataset->targets));
    for (int f = 1; f < dataset->files; f++) {
        fb3_dataset_report one = {0};
        FB3_TRY(fb3_dataset_report_read(dataset->file[f].file, &one, dataset->targets));
        for (int i = 0; i < COUNTERS_COUNT; i++) *field_of(report, &COUNTERS[i]) += *field_of(&one, &COUNTERS[i]);
        if (one.longest > report->longest) report->longest = one.longest;
        for (int y = 0; y < dataset->targets; y++) {
            report->out_of_range[y] += one.out_of_range[y];
            report->constant[y] = report->constant[y] && one.constant[y];
        }
    }
    return FB3_OK;
}

void fb3_dataset_report_log(const fb3_dataset_report *report, const fb3_dataset_options *options)
{
    fb3_log_info("%lld essays, %lld tokens%s", (long long)report->samples, (long long)report->total_tokens,
                 report->reused ? " (data set reused, its source is unchanged)" : "");
    if (report->truncated_samples > 0)
        fb3_log_warn("%lld of %lld essays lose %lld tokens to max_length %d (the longest has %d)",
                     (long long)report->truncated_samples, (long long)report->samples,
                     (long long)report->truncated_tokens, options->max_length, report->longest);
    if (report->duplicate_texts > 0)
        fb3_log_warn("%lld essays have the text of an earlier one", (long long)report->duplicate_texts);
    for (int y = 0; y < options->label_columns->count; y++) {
        const char *name = options->label_columns->item[y];
        if (report->constant[y]) fb3_log_warn("every score in column %s is the same", name);
        if (report->out_of_range[y] > 0)
            fb3_log_warn("%lld scores in column %s are outside 1 to 5", (long long)report->out_of_range[y], name);
    }
}
