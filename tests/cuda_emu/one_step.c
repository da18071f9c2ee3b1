/* One training step on the emulated device, to be counted: tools/gpu-model reads what it prints and what the emulator
 * writes to CUDAEMU_TRACE. Between the emulator's rows there is one after each operation of the backend's table:
 *
 *   op name layer         what stands above, up to the operation before, was this operation's
 *
 * one_step key=value ...: preset, layers, heads, intermediate, vocab, sequences, max_length. A number of heads other
 * than the preset's changes the hidden size with it. Anything else is an option of the program. On standard output: one
 * JSON object with the sizes of the step. */
#include "fb3/observer.h"
#include "fb3/train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct step_size {
    const char *preset;
    int layers, heads, intermediate, vocab, sequences, max_length;
} step_size;

typedef struct number_option {
    const char *key;
    int *value;
} number_option;

/* Takes the argument where it is one of ours. */
static bool take_argument(step_size *size, const char *argument)
{
    const number_option options[] = {{"layers", &size->layers},       {"heads", &size->heads},
                                     {"vocab", &size->vocab},         {"intermediate", &size->intermediate},
                                     {"sequences", &size->sequences}, {"max_length", &size->max_length}};
    const char *equals = strchr(argument, '=');
    size_t length = equals ? (size_t)(equals - argument) : 0;
    if (length == strlen("preset") && strncmp(argument, "preset", length) == 0) {
        size->preset = equals + 1;
        return true;
    }
    for (size_t i = 0; length > 0 && i < sizeof options / sizeof *options; i++) {
        if (length != strlen(options[i].key) || strncmp(argument, options[i].key, length) != 0) continue;
        *options[i].value = atoi(equals + 1);
        return true;
    }
    return false;
}

static fb3_status shape_of(fb3_model_config *model, const step_size *size)
{
    FB3_TRY(fb3_model_config_preset(model, size->preset, 128100));
    const int head_size = model->hidden / model->heads;
    if (size->layers > 0) model->layers = size->layers;
    if (size->intermediate > 0) model->intermediate = size->intermediate;
    if (size->vocab > 0) model->vocab = size->vocab;
    if (size->heads > 0) {
        model->heads = size->heads;
        model->hidden = size->heads * head_size;
    }
    return FB3_OK;
}

static fb3_status write_operation(void *context, fb3_backend *be, const char *op, fb3_work work)
{
    FILE *trace = context;
    (void)work;
    if (!trace) return FB3_OK;
    fprintf(trace, "op\t%s\t%d\n", op, be->layer);
    return fflush(trace) == 0 ? FB3_OK : fb3_fail(FB3_FAILED, "the trace cannot be written");
}

static void print_sizes(fb3_trial *trial)
{
    const fb3_model_config *model = &trial->table->model;
    const fb3_batch *batch = trial->batch;
    fb3_backend *be = trial->session->backend;
    fb3_limits limits =
        fb3_deberta_limits(trial->table, &(fb3_limits){.T = batch->T, .B = batch->B, .max_len = batch->max_len});
    printf("{\"T\": %d, \"B\": %d, \"max_len\": %d, \"U\": %d, \"A\": %d, \"Y\": %d, \"C\": %d, \"H\": %d, \"F\": %d, "
           "\"L\": %d, \"P\": %d, \"arena\": %lld, \"flops\": %.17g, \"memory\": %zu, \"scratch\": %zu, \"lengths\": [",
           batch->T, batch->B, batch->max_len, batch->U, trial->table->active, batch->Y, model->hidden, model->heads,
           model->intermediate, model->layers, fb3_model_rel_rows(model), (long long)trial->table->size,
           fb3_step_flops(model, batch->seq_start, batch->B),
           fb3_deberta_memory(trial->table, &limits, be->act, FB3_TRAINING), be->ops->scratch_bytes(be, &limits));
    for (int b = 0; b < batch->B; b++) printf("%s%d", b ? ", " : "", batch->seq_start[b + 1] - batch->seq_start[b]);
    printf("]}\n");
    fflush(stdout);
}

static fb3_status count_step(fb3_session *session, const step_size *size)
{
    fb3_model_config model;
    fb3_trial trial;
    double seconds;
    const char *path = getenv("CUDAEMU_TRACE");
    FILE *trace = path ? fopen(path, "a") : NULL;
    const fb3_observer observer = {.name = "counted", .context = trace, .after = write_operation};
    FB3_REQUIRE(trace || !path, FB3_INPUT, "cannot write %s", path);
    session->config->quiet = true;
    FB3_TRY(shape_of(&model, size));
    FB3_TRY(fb3_session_open_backend(session));
    FB3_TRY(fb3_trial_open(&trial, session, &model, size->sequences, size->max_length));
    print_sizes(&trial);
    fb3_status status = fb3_backend_observe(session->backend, &observer);
    if (status == FB3_OK) status = write_operation(trace, session->backend, "setup", (fb3_work){0});
    if (status == FB3_OK) status = fb3_trial_step(&trial, &seconds);
    fb3_backend_observe_end(session->backend);
    fb3_trial_close(&trial);
    if (trace) fclose(trace);
    return status;
}

int main(int argc, char **argv)
{
    step_size size = {.preset = "deberta-v3-base", .sequences = 8, .max_length = 512};
    char *arguments[64] = {argv[0], "bench", "--device", "cuda", "--bf16", "true"};
    int count = 6;
    for (int i = 1; i < argc && count < 63; i++)
        if (!take_argument(&size, argv[i])) arguments[count++] = argv[i];
    fb3_config config;
    fb3_session session;
    fb3_status status = fb3_config_parse(&config, count, arguments);
    if (status == FB3_OK) {
        status = fb3_session_open(&session, &config);
        if (status == FB3_OK) status = count_step(&session, &size);
        if (status != FB3_OK) fprintf(stderr, "%s\n", fb3_error_text());
        fb3_session_close(&session);
    } else {
        fprintf(stderr, "%s\n", fb3_error_text());
    }
    fb3_config_free(&config);
    return status == FB3_OK ? 0 : 1;
}
