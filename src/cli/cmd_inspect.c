/* fb3-dist inspect PATH...: says what a file or directory is, and shows it. */
#include "cli.h"
#include "fb3/file.h"
#include "fb3/run_directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_SAMPLES = 3 };

static bool has(const char *folder, const char *name)
{
    char *path = fb3_path_join(folder, name);
    bool there = path && fb3_file_exists(path);
    free(path);
    return there;
}

static void print_model(const fb3_model_config *model)
{
    printf("  model            DeBERTa-v2: hidden %d, %d layers, %d heads, intermediate %d, vocabulary %d, %d position "
           "buckets\n",
           model->hidden, model->layers, model->heads, model->intermediate, model->vocab, model->position_buckets);
}

static fb3_status inspect_dataset(const char *path)
{
    fb3_node_memory memory;
    fb3_dataset *dataset = NULL;
    fb3_strings ids = {0};
    FB3_TRY(fb3_node_memory_private(&memory));
    fb3_status status = fb3_dataset_open(&dataset, path, &memory);
    if (status == FB3_OK) {
        int64_t shown = dataset->n < SHOWN_SAMPLES ? dataset->n : SHOWN_SAMPLES;
        printf("%s: data set\n  samples          %lld\n  tokens           %lld, %d different ones\n  max_length       "
               "%d\n",
               path, (long long)dataset->n, (long long)dataset->offsets[dataset->n], dataset->active,
               dataset->max_length);
        printf("  targets         ");
        for (int y = 0; y < dataset->targets; y++) printf(" %s", dataset->label_columns.item[y]);
        printf("\n  tokenizer        sha256 %s\n  source           sha256 %s\n", dataset->tokenizer_sha256,
               dataset->source_sha256);
        status = fb3_dataset_id_range(dataset, 0, shown, &ids);
        for (int64_t i = 0; status == FB3_OK && i < shown; i++) {
            printf("  sample %-9lld %s, %d tokens\n", (long long)i, ids.item[i], fb3_dataset_length(dataset, i));
        }
    }
    fb3_strings_free(&ids);
    fb3_dataset_close(dataset);
    fb3_node_memory_private_free(&memory);
    return status;
}

static fb3_status inspect_hf(const char *path)
{
    fb3_hf_dir *hf;
    FB3_TRY(fb3_hf_open(&hf, path));
    printf("%s: Hugging Face directory\n", path);
    print_model(&hf->model);
    printf("  weights          %s\n  head             %s", hf->weights_path, hf->has_head ? "yes" : "no");
    if (hf->has_head) printf(", %d targets", hf->targets);
    putchar('\n');
    fb3_hf_close(hf);
    return FB3_OK;
}

static fb3_status inspect_run(const char *path)
{
    printf("%s: run directory\n", path);
    for (int fold = 0; fold < FB3_MAX_FOLDS; fold++) {
        fb3_checkpoint *checkpoint = NULL;
        char *last = fb3_fold_path(path, fold, "last.h5");
        FB3_REQUIRE(last, FB3_FAILED, "out of memory");
        bool there = fb3_file_exists(last);
        fb3_status status = there ? fb3_checkpoint_open(&checkpoint, last) : FB3_OK;
        free(last);
        FB3_TRY(status);
        if (!there) continue;
        const fb3_checkpoint_state *state = fb3_checkpoint_state_of(checkpoint);
        printf("  fold %-2d          step %lld of %lld, epoch %.2f, best %.4f at step %lld%s\n", fold,
               (long long)state->step, (long long)state->total_steps, state->epoch, state->best_metric,
               (long long)state->best_step, state->fold_complete ? ", complete" : "");
        fb3_checkpoint_close(checkpoint);
    }
    return FB3_OK;
}

/* Data sets and checkpoints are both HDF5: the one that opens tells. */
static fb3_status inspect_h5(const char *path)
{
    fb3_checkpoint *checkpoint = NULL;
    if (fb3_checkpoint_open(&checkpoint, path) == FB3_OK) {
        print_model(fb3_checkpoint_model(checkpoint));
        fb3_checkpoint_close(checkpoint);
        return fb3_checkpoint_print(path);
    }
    char *why = strdup(fb3_error_text());
    FB3_REQUIRE(why, FB3_FAILED, "out of memory");
    fb3_status status = inspect_dataset(path);
    if (status != FB3_OK) {
        char *not_data = strdup(fb3_error_text());
        status = fb3_fail(FB3_INPUT, "%s is neither a checkpoint (%s) nor a data set (%s)", path, why,
                          not_data ? not_data : "out of memory");
        free(not_data);
    }
    free(why);
    return status;
}

/* The runs of its seeds, or nothing that we know. */
static fb3_status inspect_seeds(const char *path)
{
    fb3_strings runs = {0};
    fb3_status status = fb3_run_directories_add(&runs, path);
    for (int i = 0; status == FB3_OK && i < runs.count; i++) {
        status = fb3_run_directory_exists(runs.item[i])
                     ? inspect_run(runs.item[i])
                     : fb3_fail(FB3_INPUT, "%s is none of a Hugging Face directory, a run, a fold", path);
    }
    fb3_strings_free(&runs);
    return status;
}

static fb3_status inspect(const char *path)
{
    if (fb3_folder_exists(path)) {
        if (has(path, "config.json")) return inspect_hf(path);
        if (fb3_run_directory_exists(path)) return inspect_run(path);
        if (has(path, "best.h5")) {
            char *best = fb3_path_join(path, "best.h5");
            FB3_REQUIRE(best, FB3_FAILED, "out of memory");
            fb3_status status = inspect_h5(best);
            free(best);
            return status;
        }
        return inspect_seeds(path);
    }
    FB3_REQUIRE(fb3_file_exists(path), FB3_INPUT, "%s is not there", path);
    return inspect_h5(path);
}

fb3_status cmd_inspect(fb3_config *config)
{
    FB3_REQUIRE(config->arguments.count > 0, FB3_INPUT, "inspect needs a file or a directory");
    for (int i = 0; i < config->arguments.count; i++) FB3_TRY(inspect(config->arguments.item[i]));
    return FB3_OK;
}
