/* A fold's evaluation: predictions for the samples that it is not trained on, their scores, and its out-of-fold table.
 *
 * It goes block by block, so that memory does not grow with the number of samples: what a block needs is read, scored
 * and written before the next one begins. The table stands beside the one of the best evaluation so far, and takes its
 * place only if the scores turn out better. */
#include "fold_run.h"

#include "fb3/run_directory.h"

#include <stdlib.h>

enum { BLOCK_ROWS = 1 << 14 };

typedef struct block {
    const fb3_dataset *data;
    int64_t count;
    int32_t *rows; // [count]
    int64_t *wide; // [count] the same
    float *pred;   // [count, Y], like the following on the writer only
    float *truth;  // [count, Y]
    fb3_strings ids;
} block;

static void free_block(block *b)
{
    free(b->rows);
    free(b->wide);
    free(b->pred);
    free(b->truth);
    fb3_strings_free(&b->ids);
}

static fb3_status make_block(block *b, const fb3_fold_run *f)
{
    const size_t rows = (size_t)(f->rows.eval_count < BLOCK_ROWS ? f->rows.eval_count : BLOCK_ROWS);
    const size_t cells = f->is_writer ? rows * (size_t)f->run->data->targets : 1;
    *b = (block){.data = f->eval_data,
                 .rows = malloc(rows * sizeof *b->rows),
                 .wide = malloc(rows * sizeof *b->wide),
                 .pred = malloc(cells * sizeof *b->pred),
                 .truth = malloc(cells * sizeof *b->truth)};
    FB3_REQUIRE(b->rows && b->wide && b->pred && b->truth, FB3_FAILED, "out of memory for an evaluation");
    return FB3_OK;
}

/* rows.eval is NULL where all rows of a validation set are evaluated. */
static void choose_block(block *b, const fb3_fold_run *f, int64_t first)
{
    b->count = f->rows.eval_count - first < BLOCK_ROWS ? f->rows.eval_count - first : BLOCK_ROWS;
    for (int64_t i = 0; i < b->count; i++) {
        b->rows[i] = f->rows.eval ? f->rows.eval[first + i] : (int32_t)(first + i);
        b->wide[i] = b->rows[i];
    }
}

/* On the I/O worker. */
static fb3_status read_block(void *context)
{
    block *b = context;
    fb3_strings_free(&b->ids);
    FB3_TRY(fb3_dataset_read_ids(b->data, b->wide, b->count, &b->ids));
    return fb3_dataset_read_labels(b->data, b->wide, b->count, b->truth);
}

/* On the writer: the predictions are there. */
static fb3_status take_block(fb3_fold_run *f, block *b, fb3_score_sums *sums)
{
    FB3_TRY(fb3_worker_run(f->run->session->io, read_block, b));
    fb3_score_sums_add(sums, b->truth, b->pred, b->count);
    for (int64_t i = 0; i < b->count; i++) {
        const int64_t at = i * sums->targets;
        fb3_oof_add(&f->writer.table, b->ids.item[i], f->fold, b->truth + at, b->pred + at);
    }
    return FB3_OK;
}

static fb3_status begin_table(fb3_fold_run *f)
{
    const fb3_config *config = f->run->config;
    char *path = fb3_fold_path(f->run->config->output_dir, f->fold, "oof.csv");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_oof_begin(&f->writer.table, path, config->id_column, &config->label_columns);
    free(path);
    return status;
}

fb3_status fb3_fold_evaluate(fb3_fold_run *f, fb3_scores *scores)
{
    const fb3_config *config = f->run->config;
    fb3_comm *comm = f->run->session->comm;
    fb3_score_sums sums = {
        .targets = f->run->data->targets, .loss_type = config->loss_type, .smooth_l1_beta = config->smooth_l1_beta};
    block b;
    fb3_status status = make_block(&b, f);
    if (status == FB3_OK && f->is_writer) status = begin_table(f);
    FB3_TRY_GOTO(fb3_comm_agree(comm, status, "beginning an evaluation"), done);
    for (int64_t first = 0; first < f->rows.eval_count; first += BLOCK_ROWS) {
        choose_block(&b, f, first);
        FB3_TRY_GOTO(fb3_evaluate_rows(&f->replica, b.data, &f->run->vocabulary, b.rows, b.count, b.pred, NULL), done);
        status = f->is_writer ? take_block(f, &b, &sums) : FB3_OK;
        FB3_TRY_GOTO(fb3_comm_agree(comm, status, "reading what was evaluated"), done);
    }
    if (f->is_writer) fb3_scores_of(scores, &sums);
    status = fb3_comm_broadcast(comm, scores, sizeof *scores, 0, "scores");
done:
    free_block(&b);
    return status;
}

fb3_status fb3_fold_keep_table(fb3_fold_run *f, bool keep)
{
    if (f->is_writer && !keep) fb3_oof_discard(&f->writer.table);
    if (!keep) return FB3_OK;
    fb3_status mine = f->is_writer ? fb3_oof_publish(&f->writer.table) : FB3_OK;
    return fb3_comm_agree(f->run->session->comm, mine, "writing the out-of-fold table");
}
