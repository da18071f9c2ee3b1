/* The parameter table (DESIGN 3): one row per parameter; it drives allocation, all-reduce buckets, optimizer groups,
 * checkpoints, import, export and tests. No parallel lists, no magic indices.
 *
 * Arena order is the order in which gradients close during backward: head, layer L-1 ... layer 0, then the position
 * table with its LayerNorm, the embedding LayerNorm and the word table. A range (one entry of `ranges`) is one
 * all-reduce. Within a layer the query, key and value weights are neighbours, and so are their biases: the model uses
 * them as one [3C, C] matrix and one [3C] vector. */
#ifndef FB3_PARAMS_H
#define FB3_PARAMS_H

#include "fb3/backend.h"
#include "fb3/model_config.h"

/* What a parameter is, for code that needs a particular one: fb3_param_find(table, FB3_PARAM_WORD, -1). */
typedef enum fb3_param_kind {
    FB3_PARAM_HEAD_WEIGHT,
    FB3_PARAM_HEAD_BIAS,
    FB3_PARAM_QUERY_WEIGHT,
    FB3_PARAM_KEY_WEIGHT,
    FB3_PARAM_VALUE_WEIGHT,
    FB3_PARAM_QUERY_BIAS,
    FB3_PARAM_KEY_BIAS,
    FB3_PARAM_VALUE_BIAS,
    FB3_PARAM_ATTENTION_OUT_WEIGHT,
    FB3_PARAM_ATTENTION_OUT_BIAS,
    FB3_PARAM_ATTENTION_NORM_WEIGHT,
    FB3_PARAM_ATTENTION_NORM_BIAS,
    FB3_PARAM_FFN_IN_WEIGHT,
    FB3_PARAM_FFN_IN_BIAS,
    FB3_PARAM_FFN_OUT_WEIGHT,
    FB3_PARAM_FFN_OUT_BIAS,
    FB3_PARAM_FFN_NORM_WEIGHT,
    FB3_PARAM_FFN_NORM_BIAS,
    FB3_PARAM_REL_EMBEDDINGS,
    FB3_PARAM_REL_NORM_WEIGHT,
    FB3_PARAM_REL_NORM_BIAS,
    FB3_PARAM_EMBEDDING_NORM_WEIGHT,
    FB3_PARAM_EMBEDDING_NORM_BIAS,
    FB3_PARAM_WORD,
    FB3_PARAM_KINDS,
} fb3_param_kind;

/* How a random start fills it (transformers' initialisation): N(0, initializer_range), zeros, ones. */
typedef enum fb3_param_init { FB3_INIT_NORMAL, FB3_INIT_ZERO, FB3_INIT_ONE } fb3_param_init;

typedef struct fb3_param {
    char name[96]; /* Hugging Face name in DebertaV2Model's own state dict: "encoder.layer.0.output.dense.weight";
                      the head is "fc.weight", "fc.bias" */
    fb3_param_kind kind;
    int layer;      /* 0..L-1, or -1 */
    int rows, cols; /* cols 0: a vector of `rows`. The word table's rows here are the *active* ones */
    int full_rows;  /* rows in files: the vocabulary for the word table, else `rows` */
    int64_t offset; /* in elements of every arena, a multiple of 16 */
    int64_t count;  /* rows * max(cols, 1) */
    bool decay;     /* weight decay: not on biases, not on LayerNorm weights */
    fb3_param_init init;
    int range; /* index into ranges */
} fb3_param;

typedef struct fb3_param_range {
    int64_t offset, count;
    int layer; /* -1: head or embeddings */
} fb3_param_range;

typedef struct fb3_param_table {
    fb3_param *param;
    int count;
    fb3_param_range *range;
    int ranges;
    int64_t size;            /* elements of an arena, padding included (zero and never touched by the optimizer) */
    int64_t parameters;      /* trained numbers: active word rows only, no padding */
    int64_t full_parameters; /* as Hugging Face counts, head included */
    fb3_model_config model;
    int targets, active; /* Y, A */
    int *index;          /* [(L + 1) * FB3_PARAM_KINDS] for fb3_param_find */
} fb3_param_table;

fb3_status fb3_param_table_create(fb3_param_table **table, const fb3_model_config *model, int active, int targets);
void fb3_param_table_free(fb3_param_table *table);

/* The parameter of that kind (layer -1 outside the layers). Never NULL: asking for what the model has not is our bug.
 */
const fb3_param *fb3_param_find(const fb3_param_table *table, fb3_param_kind kind, int layer);
/* By Hugging Face name, or NULL. */
const fb3_param *fb3_param_by_name(const fb3_param_table *table, const char *name);

/* AdamW segments: neighbours of one group merged. Caller frees *segments. */
fb3_status fb3_param_segments(const fb3_param_table *table, float weight_decay, fb3_adamw_segment **segments,
                              int *count);

/* Host weights of a whole model: what files hold. `arena` [table->size] has the active word rows; `word_full`
 * [vocab, C] has all of them (active ones are refreshed from the arena by whoever writes a file). */
typedef struct fb3_weights {
    float *arena, *word_full;
} fb3_weights;

fb3_status fb3_weights_alloc(fb3_weights *weights, const fb3_param_table *table);
void fb3_weights_free(fb3_weights *weights);
/* A random start: every tensor a pure function of (seed, its name). Word rows go to `word_full`; the caller gathers the
 * active ones. */
void fb3_weights_random(fb3_weights *weights, const fb3_param_table *table, uint64_t seed);
/* Only the head (fine-tuning from pretrained weights): N(0, initializer_range), zero bias. */
void fb3_weights_random_head(fb3_weights *weights, const fb3_param_table *table, uint64_t seed);
/* Copy word rows: full -> arena (active rows) and back. `active_ids` [A] ascending token ids. */
void fb3_weights_gather_word(fb3_weights *weights, const fb3_param_table *table, const uint32_t *active_ids);
void fb3_weights_scatter_word(fb3_weights *weights, const fb3_param_table *table, const uint32_t *active_ids);

#endif
