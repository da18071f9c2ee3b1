/* Inside src/model: the state of a replica and the passes that work on it.
 *
 *   embeddings.c   word rows -> LayerNorm -> dropout
 *   relpos.c       the position table: LayerNorm once, then each layer's own projection of it
 *   attention.c    disentangled self-attention
 *   layer.c        one encoder layer around it
 *   encoder.c      all of them, and the order in which gradients are final
 *   head.c         mean over the tokens, dropout, linear head
 *   loss.c         the loss and where the backward pass starts
 *   deberta.c      the memory plan, the batch, and the calls of fb3/deberta.h
 *
 * Dims as in fb3/backend.h, and P rows of the whole position table, R of them in reach of the batch's longest
 * sequence. */
#ifndef FB3_MODEL_INTERNAL_H
#define FB3_MODEL_INTERNAL_H

#include "fb3/deberta.h"

/* y = x w^T + b, and where its gradients go (NULL for inference). */
typedef struct fb3_linear {
    const void *w, *b; // act [O, I], [O]
    float *dw, *db;
} fb3_linear;

typedef struct fb3_norm {
    const float *gamma, *beta; // [C]
    float *dgamma, *dbeta;
} fb3_norm;

/* The parameters of an encoder layer. The first 2C rows of qkv are the query and key projections, which also serve the
 * position table. */
typedef struct fb3_layer {
    fb3_linear qkv, attention_out, ffn_in, ffn_out;
    fb3_norm attention_norm, ffn_norm;
} fb3_layer;

/* What the forward pass of a layer leaves for its backward pass. Evaluation has one for all layers; then y2 is also
 * the input. */
typedef struct fb3_layer_saved {
    void *pos;            // act [R, 2C]  Qpos | Kpos
    void *qkv;            // act [T, 3C]
    void *context;        // act [T, C]   attention's output
    float *lse;           // [H, T]
    void *s1, *y1;        // act [T, C]   before and after the attention's LayerNorm
    float *mean1, *rstd1; // [T]
    void *pre;            // act [T, F]   before GELU
    void *s2, *y2;        // act [T, C]   before and after the feed-forward's LayerNorm; y2 is the layer's output
    float *mean2, *rstd2; // [T]
} fb3_layer_saved;

struct fb3_deberta {
    fb3_backend *be;
    const fb3_param_table *table;
    fb3_arenas arenas;
    fb3_limits limits; /* every field filled in */
    fb3_model_mode mode;
    int C, H, F, L, P, Y;
    fb3_layer *layer; /* [L] */
    fb3_norm embedding_norm, rel_norm;

    void *memory; /* of all buffers below (deberta.c) */

    /* the loaded batch */
    fb3_ragged ragged;
    int32_t *ids, *seq_start, *token_seq, *by_id, *id_start, *id_value; // [T], [B+1], [T], [T], [U+1], [U]
    uint32_t *sample;                                                   // [B]
    float *targets;                                                     // [B, Y]
    int32_t *seq_start_host;                                            // [B+1]
    int U;
    bool has_targets;

    /* the current pass */
    fb3_dropout_rates rates;
    fb3_rng_key key;
    uint32_t step;
    const fb3_model_hooks *hooks;
    int ranges_ready;

    /* position table */
    fb3_attention attention;
    fb3_ragged table_rows;            /* the P rows as one sequence, for dropout */
    int32_t *table_start, *table_seq; // [2], [P]
    uint32_t *table_sample;           // [1]
    int32_t table_start_host[2];
    int16_t *bucket, *bucket_host; // [2 limit - 1]
    void *rel, *rel_dropped;       // act [P, C]
    float *rel_mean, *rel_rstd;    // [P]
    float *drel;                   // [P, C]       gradient of rel, summed over layers
    void *drel_layer;              // act [P, C]   one layer's share; zero outside the reach

    /* activations outside the layers, and the work space of a layer */
    void *embedded;                       // act [T, C]
    float *embedded_mean, *embedded_rstd; // [T]
    fb3_layer_saved *saved;               /* [L], or [1] for evaluation */
    void *gelu;                           // act [T, F]
    float *pooled, *pred;                 // [B, C], [B, Y]
    double *sums;                         // [1 + Y]

    /* gradients of activations */
    void *dy, *dbranch, *dcontext; // act [T, C]
    void *dffn;                    // act [T, F]
    void *dqkv;                    // act [T, 3C]
    void *dpos;                    // act [R, 2C]
    float *dpooled, *dpred;        // [B, C], [B, Y]
};

/* The mask of a place in this step; p = 0 in evaluation. */
static inline fb3_dropout fb3_dropout_at(const fb3_deberta *m, float p, uint32_t site)
{
    return (fb3_dropout){.p = p, .key = m->key, .step = m->step, .site = site};
}

static inline fb3_dropout fb3_dropout_in_layer(const fb3_deberta *m, float p, int l, uint32_t place)
{
    return fb3_dropout_at(m, p, FB3_SITE_LAYER + FB3_SITES_PER_LAYER * (uint32_t)l + place);
}

/* A chance for communication, between operations of the backward pass. */
static inline fb3_status fb3_poll(const fb3_deberta *m)
{
    return m->hooks && m->hooks->poll ? m->hooks->poll(m->hooks->context) : FB3_OK;
}

fb3_status fb3_embeddings_forward(fb3_deberta *m);
fb3_status fb3_embeddings_backward(fb3_deberta *m); /* dy -> gradients */

/* Fills the table of x(i - j) and the pseudo sequence of the position table, once. */
fb3_status fb3_relpos_prepare(fb3_deberta *m);
/* Sets the rows that the loaded batch can reach. */
void fb3_relpos_reach(fb3_deberta *m);
fb3_status fb3_relpos_forward(fb3_deberta *m);
fb3_status fb3_relpos_project(fb3_deberta *m, int l, void *pos);
fb3_status fb3_relpos_backward_begin(fb3_deberta *m);
fb3_status fb3_relpos_project_backward(fb3_deberta *m, int l); /* dpos -> gradients, drel += */
fb3_status fb3_relpos_backward(fb3_deberta *m);

fb3_status fb3_attention_forward(fb3_deberta *m, int l, const void *x, fb3_layer_saved *s);
fb3_status fb3_attention_backward(fb3_deberta *m, int l, const void *x, const fb3_layer_saved *s);

fb3_status fb3_layer_forward(fb3_deberta *m, int l, const void *x, fb3_layer_saved *s);
fb3_status fb3_layer_backward(fb3_deberta *m, int l, const void *x, const fb3_layer_saved *s); /* dy -> dy */

fb3_status fb3_encoder_forward(fb3_deberta *m);
fb3_status fb3_encoder_backward(fb3_deberta *m); /* dy is the gradient of the last layer's output */
const void *fb3_encoder_output(const fb3_deberta *m);
/* The next range of the table is final. */
fb3_status fb3_range_ready(fb3_deberta *m);

fb3_status fb3_head_forward(fb3_deberta *m);
fb3_status fb3_head_backward(fb3_deberta *m); /* dpred -> gradients, dy */

/* dpred from the loss. */
fb3_status fb3_loss_backward(fb3_deberta *m, fb3_loss_kind kind, float beta, int64_t samples);

#endif
