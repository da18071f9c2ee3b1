/* The encoder: embeddings, the position table, L layers. No LayerNorm follows the last one.
 *
 * The backward pass closes the table's ranges in their order: a layer's gradients are final when its backward pass
 * ends; the position table, the embedding LayerNorm and the word table, to which every layer and token adds, are the
 * last range. */
#include "internal.h"

enum { OUTSIDE_LAYERS = -1 };

static fb3_layer_saved *saved_of(const fb3_deberta *m, int l)
{
    return &m->saved[m->mode == FB3_INFERENCE ? 0 : l];
}

static const void *input_of(const fb3_deberta *m, int l)
{
    return l == 0 ? m->embedded : saved_of(m, l - 1)->y2;
}

const void *fb3_encoder_output(const fb3_deberta *m)
{
    return saved_of(m, m->L - 1)->y2; // act [T, C]
}

fb3_status fb3_encoder_forward(fb3_deberta *m)
{
    m->be->layer = OUTSIDE_LAYERS;
    FB3_TRY(fb3_embeddings_forward(m));
    FB3_TRY(fb3_relpos_forward(m));
    for (int l = 0; l < m->L; l++) FB3_TRY(fb3_layer_forward(m, l, input_of(m, l), saved_of(m, l)));
    m->be->layer = OUTSIDE_LAYERS;
    return FB3_OK;
}

fb3_status fb3_encoder_backward(fb3_deberta *m)
{
    FB3_TRY(fb3_relpos_backward_begin(m));
    for (int l = m->L - 1; l >= 0; l--) {
        /* the last layer's share is still there */
        if (m->mode == FB3_TRAINING_CHECKPOINTED && l < m->L - 1)
            FB3_TRY(fb3_layer_forward(m, l, input_of(m, l), saved_of(m, l)));
        FB3_TRY(fb3_layer_backward(m, l, input_of(m, l), saved_of(m, l)));
        FB3_TRY(fb3_range_ready(m));
    }
    m->be->layer = OUTSIDE_LAYERS;
    FB3_TRY(fb3_relpos_backward(m));
    FB3_TRY(fb3_embeddings_backward(m));
    return fb3_range_ready(m);
}

fb3_status fb3_range_ready(fb3_deberta *m)
{
    const fb3_param_range *range = &m->table->range[m->ranges_ready++];
    if (m->hooks && m->hooks->grads_ready)
        FB3_TRY(m->hooks->grads_ready(m->hooks->context, range->offset, range->count));
    return fb3_poll(m);
}
