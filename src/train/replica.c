/* The model on this rank's device: arenas, the encoder over them, and the words that can occur. */
#include "fb3/train.h"

#include <stdlib.h>
#include <string.h>

fb3_status fb3_vocabulary_make(fb3_vocabulary *vocabulary, const fb3_dataset *a, const fb3_dataset *b, int size)
{
    const fb3_dataset *source[2] = {a, b};
    *vocabulary = (fb3_vocabulary){.size = size};
    vocabulary->row = malloc((size_t)size * sizeof *vocabulary->row);
    vocabulary->active = malloc((size_t)size * sizeof *vocabulary->active);
    if (!vocabulary->row || !vocabulary->active) {
        fb3_vocabulary_free(vocabulary);
        return fb3_fail(FB3_FAILED, "out of memory for a vocabulary of %d", size);
    }
    for (int id = 0; id < size; id++) vocabulary->row[id] = -1;
    for (int s = 0; s < 2; s++) {
        for (int i = 0; source[s] && i < source[s]->active; i++) {
            uint32_t id = source[s]->vocabulary[i];
            if (id >= (uint32_t)size) {
                fb3_vocabulary_free(vocabulary);
                return fb3_fail(FB3_INPUT,
                                "token id %u occurs in the data, and the model's word table has %d rows; the tokenizer "
                                "is not that of the model",
                                id, size);
            }
            vocabulary->row[id] = 0;
        }
    }
    for (int id = 0; id < size; id++) {
        if (vocabulary->row[id] < 0) continue;
        vocabulary->row[id] = vocabulary->count;
        vocabulary->active[vocabulary->count++] = (uint32_t)id;
    }
    return FB3_OK;
}

void fb3_vocabulary_free(fb3_vocabulary *vocabulary)
{
    free(vocabulary->active);
    free(vocabulary->row);
    *vocabulary = (fb3_vocabulary){0};
}

static fb3_status alloc_arenas(fb3_backend *be, fb3_arenas *arenas, int64_t size, bool training)
{
    size_t bytes = (size_t)size * sizeof(float);
    float **arena[] = {&arenas->param, &arenas->grad, &arenas->m, &arenas->v};
    int count = training ? 4 : 1;
    for (int i = 0; i < count; i++) {
        FB3_TRY(be->ops->alloc(be, (void **)arena[i], bytes));
        FB3_TRY(be->ops->zero(be, *arena[i], bytes));
    }
    arenas->param_act = arenas->param;
    if (be->act == FB3_F32) return FB3_OK;
    arenas->param_act = NULL;
    return be->ops->alloc(be, &arenas->param_act, (size_t)size * fb3_dtype_size(be->act));
}

static fb3_status alloc_fixed(fb3_replica *replica)
{
    fb3_backend *be = replica->session->backend;
    return be->ops->alloc(be, (void **)&replica->fixed, (size_t)(replica->table->size + 1) * sizeof *replica->fixed);
}

fb3_model_mode fb3_training_mode(const fb3_config *config)
{
    return config->gradient_checkpointing ? FB3_TRAINING_CHECKPOINTED : FB3_TRAINING;
}

fb3_status fb3_replica_open(fb3_replica *replica, fb3_session *session, const fb3_param_table *table, int max_tokens,
                            int max_sequences, int max_length, fb3_model_mode mode)
{
    *replica =
        (fb3_replica){.session = session, .table = table, .max_tokens = max_tokens, .max_sequences = max_sequences};
    const fb3_limits limits = {.T = max_tokens, .B = max_sequences, .max_len = max_length};
    FB3_TRY(fb3_replica_check_memory(session, table, &limits, mode));
    FB3_TRY(alloc_arenas(session->backend, &replica->arenas, table->size, mode != FB3_INFERENCE));
    if (session->config->reproducible && mode != FB3_INFERENCE) FB3_TRY(alloc_fixed(replica));
    return fb3_deberta_create(&replica->model, session->backend, table, &replica->arenas, &limits, mode);
}

void fb3_replica_close(fb3_replica *replica)
{
    if (!replica->session) return;
    fb3_backend *be = replica->session->backend;
    fb3_arenas *arenas = &replica->arenas;
    fb3_deberta_free(replica->model);
    if (arenas->param_act != arenas->param) be->ops->free(be, arenas->param_act);
    be->ops->free(be, arenas->param);
    be->ops->free(be, arenas->grad);
    be->ops->free(be, arenas->m);
    be->ops->free(be, arenas->v);
    be->ops->free(be, replica->fixed);
    *replica = (fb3_replica){0};
}

fb3_status fb3_replica_upload(fb3_replica *replica, const float *param)
{
    fb3_backend *be = replica->session->backend;
    fb3_arenas *arenas = &replica->arenas;
    FB3_TRY(be->ops->upload(be, arenas->param, param, (size_t)replica->table->size * sizeof *param));
    if (arenas->param_act == arenas->param) return FB3_OK;
    return be->ops->cast_to_act(be, arenas->param_act, arenas->param, replica->table->size);
}

fb3_status fb3_replica_snapshot(fb3_replica *replica, float *arena, float **staging, float **host)
{
    fb3_backend *be = replica->session->backend;
    size_t bytes = (size_t)replica->table->size * sizeof *arena;
    if (be->ops->host_memory) {
        FB3_TRY(be->ops->sync(be));
        *host = arena;
        return FB3_OK;
    }
    if (!*staging) FB3_TRY(be->ops->alloc_host(be, (void **)staging, bytes));
    FB3_TRY(be->ops->snapshot(be, *staging, arena, bytes));
    *host = *staging;
    return FB3_OK;
}
