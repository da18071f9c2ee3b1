/* The shape of a DeBERTa-v2/v3 encoder, from config.json or a preset. */
#ifndef FB3_MODEL_CONFIG_H
#define FB3_MODEL_CONFIG_H

#include "fb3/status.h"
#include <stddef.h>

typedef struct fb3_model_config {
    int vocab, hidden, layers, heads, intermediate;
    int position_buckets;    /* 256 */
    int max_relative;        /* 512: max_relative_positions, or max_position_embeddings where that is -1 */
    float layer_norm_eps;    /* 1e-7 */
    float initializer_range; /* 0.02 */
    float hidden_dropout, attention_dropout; /* config.json's own; the run's keys decide what training uses */
} fb3_model_config;

/* Rows of the position table: 2 * position_buckets. */
static inline int fb3_model_rel_rows(const fb3_model_config *model)
{
    return 2 * model->position_buckets;
}

/* "deberta-v3-xsmall", "-small", "-base", "-large", "tiny" (hidden 64, 2 layers, 4 heads, intermediate 128). */
fb3_status fb3_model_config_preset(fb3_model_config *model, const char *preset, int vocab);

/* From the text of a config.json (`what` names it in errors). FB3_INPUT, by name, for anything that DESIGN 4 does not
 * support: a conv layer, share_att_key false, absolute positions, token types, another activation, hidden % 16, ... */
fb3_status fb3_model_config_parse(fb3_model_config *model, const char *json, size_t bytes, const char *what);

/* config.json that AutoModel and the notebook read. Caller frees; NULL: out of memory. */
char *fb3_model_config_json(const fb3_model_config *model);

/* bucket(r) and x(delta) of DESIGN 4 (microsoft/DeBERTa, deberta/da_utils.py, make_log_bucket_position). */
int fb3_position_bucket(int relative, int buckets, int max_relative);
int fb3_position_index(int delta, const fb3_model_config *model);

#endif
