/* fb3-dist: the command line. A verb is a row of one table; train, predict and the other distributed verbs run inside a
 * session (MPI, cores, backend), the rest are plain functions. Errors are values up to here: this is the only place
 * that prints one and ends the process. */
#include "cli.h"
#include "fb3/bench.h"
#include "fb3/file.h"
#include "fb3/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct verb {
    const char *name;
    fb3_status (*run)(fb3_config *config); /* one of the two */
    fb3_status (*run_session)(fb3_session *session);
} verb;

static const verb VERBS[] = {
    {.name = "train", .run_session = fb3_train},
    {.name = "predict", .run_session = fb3_predict},
    {.name = "evaluate", .run_session = fb3_evaluate},
    {.name = "prepare", .run_session = cmd_prepare},
    {.name = "folds", .run_session = cmd_folds},
    {.name = "bench", .run_session = fb3_bench},
    {.name = "init", .run = cmd_init},
    {.name = "export", .run = cmd_export},
    {.name = "inspect", .run = cmd_inspect},
    {.name = "doctor", .run = cmd_doctor},
    {.name = "report", .run = cmd_report},
    {.name = "status", .run = cmd_status},
    {.name = "compare", .run = cmd_compare},
};

static const verb *find_verb(const char *name)
{
    for (size_t i = 0; i < sizeof VERBS / sizeof *VERBS; i++) {
        if (strcmp(VERBS[i].name, name) == 0) return &VERBS[i];
    }
    return NULL;
}

/* The rank that the launcher gave this process; needed before MPI has started. */
static int launcher_rank(void)
{
    static const char *const VARIABLES[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++) {
        const char *text = getenv(VARIABLES[i]);
        if (text) return atoi(text);
    }
    return 0;
}

/* Most failures are common to all ranks: rank 0 speaks at once, the others two seconds later, unless the launcher ends
 * them before that (Open MPI takes about one second, and sends SIGTERM, which ends the sleep). */
static void report_failure(int rank)
{
    const struct timespec moment = {.tv_sec = 2};
    if (rank > 0 && nanosleep(&moment, NULL) != 0) return;
    fb3_log_error(fb3_error_text());
}

static int run_in_session(const verb *v, fb3_config *config)
{
    fb3_session session;
    fb3_status status = fb3_session_open(&session, config);
    if (status == FB3_OK) status = v->run_session(&session);
    if (status == FB3_OK) {
        fb3_session_close(&session);
        return FB3_OK;
    }
    report_failure(session.world ? fb3_comm_rank(session.world) : 0);
    /* a stop was agreed by all ranks, and a world of one has nobody to wait for: these end in order */
    if (status == FB3_STOPPED || !session.world || fb3_comm_size(session.world) == 1) {
        fb3_session_close(&session);
    } else {
        fb3_comm_abort(status);
    }
    return status;
}

/* --debug: a few steps on a few samples, in a directory that is begun anew, unless told otherwise. */
static fb3_status apply_debug(fb3_config *config)
{
    enum { DEBUG_STEPS = 3, DEBUG_SAMPLES = 16 };
    if (!config->debug) return FB3_OK;
    if (!fb3_config_given(config, "max_steps")) config->max_steps = DEBUG_STEPS;
    if (!fb3_config_given(config, "max_train_samples")) config->max_train_samples = DEBUG_SAMPLES;
    if (!fb3_config_given(config, "max_eval_samples")) config->max_eval_samples = DEBUG_SAMPLES;
    if (fb3_config_given(config, "output_dir")) return FB3_OK;
    free(config->output_dir);
    config->output_dir = strdup("outputs/debug");
    FB3_REQUIRE(config->output_dir, FB3_FAILED, "out of memory");
    return fb3_folder_remove(config->output_dir);
}

static int run(fb3_config *config, int argc, char **argv)
{
    fb3_log_identity(launcher_rank(), 1, ""); /* until MPI tells more: warnings come from rank 0 only */
    fb3_status status = fb3_config_parse(config, argc, argv);
    if (status == FB3_OK && config->version) {
        if (launcher_rank() == 0) print_versions();
        return FB3_OK;
    }
    if (status == FB3_OK && config->help) {
        if (launcher_rank() == 0) fb3_config_help(config->verb);
        return FB3_OK;
    }
    if (status == FB3_OK) status = fb3_config_check_supported(config);
    if (status == FB3_OK) status = apply_debug(config);
    const verb *v = status == FB3_OK ? find_verb(config->verb) : NULL;
    if (status == FB3_OK && !v) status = fb3_fail(FB3_INPUT, "there is no verb %s; see fb3-dist --help", config->verb);
    if (status == FB3_OK && v->run_session) return run_in_session(v, config);
    if (status == FB3_OK) status = v->run(config);
    if (status != FB3_OK) report_failure(launcher_rank());
    return status;
}

int main(int argc, char **argv)
{
    fb3_config config = {0};
    int code = run(&config, argc, argv);
    fb3_config_free(&config);
    return code;
}
