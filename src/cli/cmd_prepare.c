/* fb3-dist prepare: CSV + tokenizer -> a data set (--output data.h5). */
#include "cli.h"
#include "fb3/log.h"

#include <stdlib.h>

/* The tokenizer that was named, or that of the model. */
static fb3_status open_tokenizer(fb3_tokenizer **tokenizer, const fb3_config *config)
{
    char *directory = NULL;
    const char *path = config->tokenizer;
    if (!path) {
        FB3_REQUIRE(config->model_name_or_path, FB3_INPUT,
                    "prepare needs a tokenizer: set tokenizer, or model_name_or_path");
        FB3_TRY(fb3_hf_find(config->model_name_or_path, config->model_revision, &directory));
        path = directory;
    }
    fb3_status status = fb3_tokenizer_open(tokenizer, path);
    free(directory);
    return status;
}

fb3_status cmd_prepare(fb3_session *session)
{
    const fb3_config *config = session->config;
    fb3_tokenizer *tokenizer = NULL;
    fb3_dataset *dataset = NULL;
    fb3_status status = FB3_OK;
    const char *output = config->output ? config->output : "data.h5";
    FB3_REQUIRE(config->train_file.count > 0, FB3_INPUT, "prepare needs --train_file TRAIN.csv");
    FB3_TRY_GOTO(open_tokenizer(&tokenizer, config), done);
    FB3_TRY_GOTO(fb3_session_prepare(session, &dataset, &config->train_file, output, tokenizer, (int)config->max_length,
                                     true, FB3_UNSET_INT),
                 done);
    if (session->root) {
        fb3_log_info("%s: %lld samples, %lld tokens, %d different ones", output, (long long)dataset->n,
                     (long long)dataset->offsets[dataset->n], dataset->active);
    }
done:
    fb3_dataset_close(dataset);
    fb3_tokenizer_close(tokenizer);
    return status;
}
