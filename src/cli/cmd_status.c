/* fb3-dist status [RUN_DIR...]: how far runs are, from their directories alone; --watch goes on until they have ended.
 */
#include "cli.h"
#include "fb3/run_directory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WATCH_SECONDS = 2, WIDE = 100 /* where there is no terminal */ };

/* --- a run as text ------------------------------------------------------------------------------------------------ */

static const fb3_fold_progress *newest_fold(const fb3_run_progress *run)
{
    const fb3_fold_progress *newest = NULL;
    for (int i = 0; i < run->count; i++)
        if (run->fold[i].updated > 0 && (!newest || run->fold[i].updated > newest->updated)) newest = &run->fold[i];
    return newest;
}

/* ": training, 02:31 to go; alive: process 4711 on node07, 3 s ago" */
static void print_head(FILE *out, const fb3_run_progress *run)
{
    const fb3_fold_progress *newest = newest_fold(run);
    char text[FB3_DURATION_BYTES];
    fprintf(out, "%s: %s", run->directory, fb3_run_state_name(run->state));
    if (isfinite(run->eta)) {
        fb3_duration_format(text, run->eta);
        fprintf(out, ", about %s to go", text);
    }
    if (run->state == FB3_RUN_COMPLETE && isfinite(run->pooled)) fprintf(out, ", MCRMSE %.4f", run->pooled);
    fputs(run->alive ? "; alive" : "; not alive", out);
    if (newest) {
        fb3_duration_format(text, (double)time(NULL) - run->updated);
        fprintf(out, "; last word %s ago, of process %lld on %s", text, (long long)newest->pid,
                newest->host[0] ? newest->host : "?");
    }
    fputc('\n', out);
}

/* How it ended, and how to go on. */
static void print_end(FILE *out, const fb3_run_progress *run)
{
    static const char *const GO_ON = "the same command goes on from the last checkpoint";
    switch (run->state) {
    case FB3_RUN_STOPPED:
        fprintf(out, "It was stopped, with a complete checkpoint: %s.\n", GO_ON);
        break;
    case FB3_RUN_FAILED:
        for (int i = 0; i < run->count; i++)
            if (run->fold[i].error[0]) fprintf(out, "Fold %d failed: %s\n", run->fold[i].fold, run->fold[i].error);
        fprintf(out, "When that is mended, %s.\n", GO_ON);
        break;
    case FB3_RUN_KILLED:
        fprintf(out, "It ended without a word (killed, out of memory, or the machine went down): %s.\n", GO_ON);
        break;
    default:
        break;
    }
}

static void print_run(FILE *out, const fb3_run_progress *run, const fb3_lines_style *style, bool quiet)
{
    int lines;
    print_head(out, run);
    char *text = quiet ? NULL : fb3_progress_lines(run->fold, run->count, style, &lines);
    if (text) fputs(text, out);
    free(text);
    if (quiet) return;
    for (int i = 0; i < run->notes.count; i++) fprintf(out, "%s\n", run->notes.item[i]);
    print_end(out, run);
}

/* Not wider than the terminal, so that what is redrawn is as many rows as it has lines. Cuts between characters. */
static int print_clipped(const char *text, int width)
{
    int lines = 0;
    for (const char *start = text; *start; lines++) {
        size_t length = strcspn(start, "\n"), shown = length;
        bool coloured = memchr(start, '\033', length) != NULL; /* made to fit already */
        if (!coloured && shown >= (size_t)width) shown = (size_t)width - 1;
        while (shown < length && ((unsigned char)start[shown] & 0xC0) == 0x80) shown--;
        printf("%.*s\n", (int)shown, start);
        start += length + (start[length] == '\n');
    }
    return lines;
}

/* --- the verb ----------------------------------------------------------------------------------------------------- */

typedef struct display {
    const fb3_config *config;
    fb3_strings runs;
    fb3_terminal terminal;
    int drawn; /* lines on the terminal that the next look takes the place of */
} display;

static fb3_status print_json(FILE *out, const fb3_run_progress *run, int i, int runs)
{
    char *text = fb3_run_progress_json(run);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory for the progress of %s", run->directory);
    if (runs == 1)
        fprintf(out, "%s\n", text);
    else
        fprintf(out, "%s%s%s", i == 0 ? "{\"runs\":[" : ",", text, i == runs - 1 ? "]}\n" : "");
    free(text);
    return FB3_OK;
}

/* *alive: one of the runs is. */
static fb3_status print_runs(FILE *out, const display *d, bool *alive)
{
    const fb3_lines_style style = {.width = d->terminal.file >= 0 ? fb3_terminal_width(&d->terminal) : WIDE,
                                   .colour = d->terminal.colour};
    *alive = false;
    for (int i = 0; i < d->runs.count; i++) {
        fb3_run_progress run;
        fb3_status status = FB3_OK;
        FB3_TRY(fb3_run_progress_read(&run, d->runs.item[i]));
        *alive |= run.alive;
        if (d->config->json)
            status = print_json(out, &run, i, d->runs.count);
        else
            print_run(out, &run, &style, d->config->quiet);
        fb3_run_progress_free(&run);
        FB3_TRY(status);
    }
    return FB3_OK;
}

static void show(display *d, const char *text)
{
    const bool redrawn = d->config->watch && !d->config->json && d->terminal.file >= 0;
    if (redrawn && d->drawn > 0) printf("\033[%dA\r\033[J", d->drawn);
    if (redrawn)
        d->drawn = print_clipped(text, fb3_terminal_width(&d->terminal));
    else
        fputs(text, stdout);
    fflush(stdout);
}

static fb3_status look(display *d, bool *alive)
{
    char *text = NULL;
    size_t bytes = 0;
    fb3_strings_free(&d->runs); /* a seed may have begun */
    FB3_TRY(fb3_run_directories_given(&d->runs, d->config));
    FILE *out = open_memstream(&text, &bytes);
    FB3_REQUIRE(out, FB3_FAILED, "out of memory for the progress of runs");
    fb3_status status = print_runs(out, d, alive);
    if (fclose(out) != 0 && status == FB3_OK) status = fb3_fail(FB3_FAILED, "out of memory for the progress of runs");
    if (status == FB3_OK) show(d, text);
    free(text);
    return status;
}

fb3_status cmd_status(fb3_config *config)
{
    display d = {.config = config, .terminal = fb3_terminal_find(STDOUT_FILENO)};
    bool alive = false, was_alive = false;
    fb3_status status = look(&d, &alive);
    /* Between two seeds of a run nothing is alive for a moment. */
    while (status == FB3_OK && config->watch && (alive || (was_alive && d.runs.count > 1))) {
        was_alive = alive;
        sleep(WATCH_SECONDS);
        status = look(&d, &alive);
    }
    fb3_terminal_close(&d.terminal);
    fb3_strings_free(&d.runs);
    return status;
}
