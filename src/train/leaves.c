/* Why leaves give the same bits on any number of ranks: a leaf has the same samples whoever computes it, and is
 * computed alone, so its gradient has the same bits; rounded to fixed point it is an integer, and integers add up to
 * the same in any order. Its loss sums stay doubles, and are added in the order of the leaves. */
#include "leaves.h"

#include <string.h>

static int sums_width(const fb3_trainer *trainer)
{
    return FB3_LOSS_SUMS(trainer->targets);
}

fb3_status fb3_leaves_begin(fb3_trainer *trainer)
{
    fb3_backend *be = trainer->session->backend;
    fb3_replica *replica = trainer->replica;
    const size_t sums = (size_t)(trainer->split.leaves * sums_width(trainer));
    memset(trainer->leaf_sums, 0, sums * sizeof *trainer->leaf_sums);
    return be->ops->zero(be, replica->fixed, (size_t)(replica->table->size + 1) * sizeof *replica->fixed);
}

fb3_status fb3_leaves_take_sums(fb3_trainer *trainer, int leaf)
{
    fb3_backend *be = trainer->session->backend;
    fb3_deberta *model = trainer->replica->model;
    FB3_TRY(fb3_deberta_loss_fetch(model, trainer->leaf_sums + leaf * sums_width(trainer)));
    FB3_TRY(be->ops->sync(be));
    return fb3_deberta_loss_begin(model);
}

/* Each leaf is on one rank, and zero on the others, so its sums arrive as they were. */
fb3_status fb3_leaves_reduce_sums(fb3_trainer *trainer, double *sums)
{
    const int width = sums_width(trainer), leaves = trainer->split.leaves;
    FB3_TRY(fb3_comm_sum_double(trainer->session->comm, trainer->leaf_sums, leaves * width, "summing the loss"));
    for (int leaf = 0; leaf < leaves; leaf++)
        for (int k = 0; k < width; k++) sums[k] += trainer->leaf_sums[leaf * width + k];
    return FB3_OK;
}

fb3_status fb3_leaves_add_gradient(fb3_trainer *trainer)
{
    fb3_backend *be = trainer->session->backend;
    fb3_replica *replica = trainer->replica;
    const float limit = FB3_FIXED_LARGEST / (float)trainer->split.leaves;
    return be->ops->fixed_add(be, replica->fixed, replica->arenas.grad, replica->table->size, limit);
}

fb3_status fb3_leaves_reduce_gradient(fb3_trainer *trainer)
{
    fb3_backend *be = trainer->session->backend;
    fb3_replica *replica = trainer->replica;
    fb3_reducer *reducer = trainer->reducer;
    FB3_TRY(reducer->ops->start_int64(reducer, replica->fixed, replica->table->size + 1));
    FB3_TRY(reducer->ops->wait(reducer, trainer->step + 1));
    return be->ops->fixed_to_float(be, replica->arenas.grad, replica->fixed, replica->table->size);
}
