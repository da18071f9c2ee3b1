/* The model and the tokenizer that a run starts from: one rank reads, the others are told. Hundreds of ranks that open
 * the same files are a storm to a parallel file system; and a file that one node sees differently cannot mislead the
 * ranks there. The weights are read by the first rank of each group, which sends them to its group (save.c). */
#include "fb3/train.h"

#include <stdlib.h>
#include <string.h>

/* What all ranks must know. */
typedef struct announcement {
    fb3_model_config model;
    size_t tokenizer_bytes;
    int32_t pretrained;
} announcement;

static fb3_status open_pretrained(fb3_run *run)
{
    char *directory;
    const fb3_config *config = run->config;
    FB3_TRY(fb3_hf_find(config->model_name_or_path, config->model_revision, &directory));
    fb3_status status = fb3_hf_open(&run->hf, directory);
    free(directory);
    return status;
}

/* On the first rank of the world. */
static fb3_status read_model(fb3_run *run)
{
    const fb3_config *config = run->config;
    const char *tokenizer = config->tokenizer;
    if (config->model_name_or_path) {
        FB3_TRY(open_pretrained(run));
        run->model = run->hf->model;
        if (!tokenizer) tokenizer = run->hf->directory;
    } else {
        FB3_REQUIRE(config->model_preset, FB3_INPUT,
                    "no model: set model_name_or_path to a Hugging Face directory or hub name, or model_preset with "
                    "init: random to start from random weights");
        FB3_REQUIRE(tokenizer, FB3_INPUT,
                    "a random start needs a tokenizer: set tokenizer to a directory with spm.model");
    }
    FB3_TRY(fb3_tokenizer_open(&run->tokenizer, tokenizer));
    if (run->hf) return FB3_OK;
    return fb3_model_config_preset(&run->model, config->model_preset, fb3_tokenizer_vocabulary(run->tokenizer));
}

fb3_status fb3_session_share_tokenizer(fb3_session *session, fb3_tokenizer **tokenizer, size_t bytes)
{
    size_t own_bytes;
    const void *own = session->root ? fb3_tokenizer_model(*tokenizer, &own_bytes) : NULL;
    char *copy = malloc(bytes + 1);
    FB3_REQUIRE(copy, FB3_FAILED, "out of memory for the tokenizer");
    if (own) memcpy(copy, own, bytes);
    fb3_status status = fb3_comm_broadcast(session->comm, copy, bytes, 0, "tokenizer");
    if (status == FB3_OK && !session->root) status = fb3_tokenizer_open_memory(tokenizer, copy, bytes);
    free(copy);
    return status;
}

fb3_status fb3_run_open_model(fb3_run *run)
{
    fb3_session *session = run->session;
    FB3_TRY(fb3_comm_agree(session->comm, session->root ? read_model(run) : FB3_OK, "opening the model"));
    announcement about = {.model = run->model, .pretrained = run->hf != NULL};
    if (session->root) (void)fb3_tokenizer_model(run->tokenizer, &about.tokenizer_bytes);
    FB3_TRY(fb3_comm_broadcast(session->comm, &about, sizeof about, 0, "model"));
    run->model = about.model;
    run->pretrained = about.pretrained;
    return fb3_session_share_tokenizer(session, &run->tokenizer, about.tokenizer_bytes);
}

/* The first rank of a group reads weights, so it has to see the right ones. */
static fb3_status find_weights(fb3_run *run)
{
    if (!run->hf) FB3_TRY(open_pretrained(run));
    return fb3_hf_weights_sha256(run->hf, run->weights_sha256);
}

fb3_status fb3_run_identify_weights(fb3_run *run)
{
    const fb3_session *session = run->session;
    if (!run->pretrained) return FB3_OK;
    fb3_status mine = session->root ? find_weights(run) : FB3_OK;
    FB3_TRY(fb3_comm_agree(session->world, mine, "reading the weights"));
    FB3_TRY(fb3_comm_broadcast(session->comm, run->weights_sha256, FB3_SHA256_HEX, 0, "hash of the weights"));
    return fb3_comm_check_same(session->world, run->weights_sha256, "weights");
}

fb3_status fb3_run_starting_weights(const fb3_run *run, fb3_weights *weights)
{
    bool has_head = true;
    uint64_t seed = (uint64_t)run->config->seed;
    FB3_TRY(fb3_weights_alloc(weights, run->table));
    if (run->hf) {
        FB3_TRY(fb3_hf_load_weights(run->hf, run->table, weights, &has_head));
        if (!has_head) fb3_weights_random_head(weights, run->table, seed);
    } else {
        fb3_weights_random(weights, run->table, seed);
    }
    fb3_weights_gather_word(weights, run->table, run->vocabulary.active);
    return FB3_OK;
}
