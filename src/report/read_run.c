/* A run from its files: run.yaml, summary.json, the data set, and by way of read_log.c and read_tables.c the folds.
 * Only run.yaml has to be there; what else is missing or cannot be read is a note on the page. */
#include "report.h"

#include "fb3/file.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* run.yaml and summary.json are a few kilobytes. */
#define LARGEST_TEXT ((size_t)1 << 20)

fb3_status run_report_pause(const run_report *report)
{
    return report->pause ? report->pause(report->context) : FB3_OK;
}

fb3_status run_report_note(run_report *report, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int bytes = vasprintf(&text, format, arguments);
    va_end(arguments);
    FB3_REQUIRE(bytes >= 0, FB3_FAILED, "out of memory for a report");
    fb3_status status = fb3_strings_add(&report->notes, text);
    free(text);
    return status;
}

fb3_status run_report_tolerate(run_report *report, fb3_status status)
{
    if (status == FB3_OK) return FB3_OK;
    char *why = strdup(fb3_error_text());
    FB3_REQUIRE(why, FB3_FAILED, "out of memory for a report");
    status = run_report_note(report, "%s", why);
    free(why);
    return status;
}

/* The last part of the directory's name, "." and links seen through. */
static char *short_name(const char *directory)
{
    char *real = realpath(directory, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    char *name = strdup(slash && slash[1] ? slash + 1 : directory);
    free(real);
    return name;
}

static fb3_status read_configuration(run_report *report)
{
    size_t bytes;
    char *path = fb3_path_join(report->directory, "run.yaml");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory for a report");
    fb3_status status = fb3_file_exists(path)
                            ? fb3_file_read(path, LARGEST_TEXT, &report->yaml, &bytes)
                            : fb3_fail(FB3_INPUT, "%s has no run.yaml; give a run directory", report->directory);
    free(path);
    if (status == FB3_OK) status = fb3_config_load_text(&report->config, report->yaml, "run.yaml");
    FB3_TRY(status);
    int64_t folds = report->config.validation_file ? 1 : report->config.folds;
    FB3_REQUIRE(folds >= 1 && folds <= FB3_MAX_FOLDS && report->config.label_columns.count >= 1 &&
                    report->config.label_columns.count <= FB3_MAX_TARGETS,
                FB3_INPUT, "%s: run.yaml has %lld folds and %d label columns", report->directory, (long long)folds,
                report->config.label_columns.count);
    report->folds = (int)folds;
    return fb3_config_train_folds(&report->config, report->folds, report->selected);
}

static fb3_status read_summary(run_report *report)
{
    char *path = fb3_path_join(report->directory, "summary.json"), *text = NULL;
    size_t bytes;
    json_error_t error;
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(path, done, FB3_FAILED, "out of memory for a report");
    if (!fb3_file_exists(path)) goto done;
    FB3_TRY_GOTO(run_report_tolerate(report, fb3_file_read(path, LARGEST_TEXT, &text, &bytes)), done);
    if (!text) goto done;
    report->summary = json_loadb(text, bytes, 0, &error);
    if (!report->summary) status = run_report_note(report, "summary.json cannot be read: %s", error.text);
done:
    free(text);
    free(path);
    return status;
}

/* --- the data set ------------------------------------------------------------------------------------------------- */

/* Data sets that were prepared are where the configuration says, what was tokenised is `name` in the run directory.
 * *dataset stays NULL, with a note, where there is none to read. */
static fb3_status open_dataset(run_report *report, const fb3_strings *sources, const char *name, fb3_dataset **dataset)
{
    char *made = fb3_path_join(report->directory, name);
    *dataset = NULL;
    FB3_REQUIRE(made, FB3_FAILED, "out of memory for a report");
    fb3_strings one = {.item = &made, .count = 1};
    const fb3_strings *paths = sources->count > 0 && fb3_is_prepared(sources->item[0]) ? sources : &one;
    fb3_status status = FB3_OK;
    for (int i = 0; i < paths->count; i++) {
        if (fb3_file_exists(paths->item[i])) continue;
        status = run_report_note(report, "There is no data set %s: lengths of essays are not known.", paths->item[i]);
        goto done;
    }
    status = run_report_tolerate(report, fb3_dataset_open_files(dataset, paths, NULL));
done:
    free(made);
    return status;
}

int length_edge(int bin, int bins, int max_length)
{
    return (int)(((int64_t)bin + 1) * max_length / bins);
}

static void count_length(data_facts *facts, int length, int max_length)
{
    int bin = 0;
    while (bin < HISTOGRAM_BINS - 1 && length > length_edge(bin, HISTOGRAM_BINS, max_length)) bin++;
    facts->histogram[length == max_length ? HISTOGRAM_BINS : bin]++;
    facts->tokens += length;
}

static fb3_status count_lengths(data_facts *facts, const fb3_dataset *data)
{
    enum { AT_ONCE = 1 << 14 };
    fb3_status status = FB3_OK;
    int *lengths = malloc(AT_ONCE * sizeof *lengths);
    FB3_REQUIRE(lengths, FB3_FAILED, "out of memory for a report");
    for (int64_t first = 0; status == FB3_OK && first < data->n; first += AT_ONCE) {
        const int64_t count = data->n - first < AT_ONCE ? data->n - first : AT_ONCE;
        status = fb3_dataset_length_range(data, first, count, lengths);
        for (int64_t i = 0; status == FB3_OK && i < count; i++) count_length(facts, lengths[i], data->max_length);
    }
    free(lengths);
    return status;
}

static fb3_status describe_data(run_report *report, const fb3_dataset *data)
{
    data_facts *facts = &report->data;
    facts->known = true;
    facts->n = data->n;
    facts->max_length = data->max_length;
    FB3_TRY(run_report_tolerate(report, count_lengths(facts, data)));
    return run_report_tolerate(report, fb3_dataset_read_report(data, &facts->report));
}

/* The data set that was trained on is described; the one that was evaluated on gives the lengths of its essays. */
static fb3_status read_data_and_tables(run_report *report)
{
    const fb3_config *config = &report->config;
    const fb3_strings validation_file = {.item = (char **)&config->validation_file,
                                         .count = config->validation_file != NULL};
    fb3_dataset *data = NULL, *validation = NULL;
    fb3_status status = FB3_OK;
    FB3_TRY_GOTO(open_dataset(report, &config->train_file, "data.h5", &data), done);
    if (config->validation_file) {
        FB3_TRY_GOTO(open_dataset(report, &validation_file, "validation.h5", &validation), done);
    }
    if (data) FB3_TRY_GOTO(describe_data(report, data), done);
    status = read_tables(report, config->validation_file ? validation : data);
done:
    fb3_dataset_close(validation);
    fb3_dataset_close(data);
    return status;
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */

static fb3_status read_run(run_report *report)
{
    FB3_TRY(read_configuration(report));
    FB3_TRY(read_summary(report));
    report->log = calloc((size_t)report->folds, sizeof *report->log);
    FB3_REQUIRE(report->log, FB3_FAILED, "out of memory for a report");
    for (int k = 0; k < report->folds; k++) FB3_TRY(read_log(report, k));
    return read_data_and_tables(report);
}

fb3_status run_report_read(run_report *report, const char *directory)
{
    time_t now = time(NULL);
    struct tm utc;
    strftime(report->made_at, sizeof report->made_at, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&now, &utc));
    report->directory = strdup(directory);
    report->name = short_name(directory);
    FB3_REQUIRE(report->directory && report->name, FB3_FAILED, "out of memory for a report");
    return read_run(report);
}

void run_report_free(run_report *report)
{
    for (int k = 0; report->log && k < report->folds; k++) fold_log_free(&report->log[k]);
    free(report->log);
    tables_free(&report->tables);
    json_decref(report->summary);
    fb3_strings_free(&report->notes);
    fb3_config_free(&report->config);
    free(report->yaml);
    free(report->name);
    free(report->directory);
    *report = (run_report){0};
}

int run_report_folds_with_tables(const run_report *report)
{
    int count = 0;
    for (int k = 0; k < report->folds; k++) count += report->tables.has[k];
    return count;
}

int run_report_folds_selected(const run_report *report)
{
    int count = 0;
    for (int k = 0; k < report->folds; k++) count += report->selected[k];
    return count;
}

int run_report_folds_ended(const run_report *report)
{
    int count = 0;
    for (int k = 0; k < report->folds; k++) count += report->selected[k] && report->log[k].ended;
    return count;
}
