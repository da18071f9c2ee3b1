/* Checkpoints: HDF5, independent of the number of ranks (INTERFACE 6, DESIGN 5.2).
 *
 *   /model/<Hugging Face name>    every parameter, the full word table, float32
 *   /optim/{m,v}/<name>           the moments (absent in best.h5); the word table's hold the active rows only
 *   /optim/active_rows uint32     the token ids of those rows
 *   /tokenizer uint8              the bytes of spm.model
 *   /model_config                 config.json's text
 *   /train attributes             below
 *
 * Writing: <path>.tmp, flush, sha256 of the whole file, hash file <path>.<hex>.sha256 in place, rename, fsync the
 * folder, then hash files of older content are removed. Reading: the hash is checked before HDF5 opens the file. All
 * HDF5 calls happen on the calling thread, which is the I/O worker's after start-up. */
#ifndef FB3_CHECKPOINT_H
#define FB3_CHECKPOINT_H

#include "fb3/hash.h"
#include "fb3/params.h"
#include "fb3/worker.h"

typedef struct fb3_checkpoint_state {
    int64_t step, samples_seen,
        updates; /* finished optimizer steps; samples; AdamW's t (steps that were not skipped) */
    double epoch;
    int64_t seed, total_steps, total_train_batch_size;
    int fold;           /* -1: folds: 1 */
    double best_metric; /* NaN: none yet */
    int64_t best_step;
    int64_t patience_used; /* evaluations without improvement */
    int64_t nonfinite_in_a_row;
    int fold_complete;                   /* 1: this fold is done */
    char *config;                        /* fb3_config_text of the run, owned */
    char *label_columns;                 /* JSON array text, owned */
    char data_sha256[FB3_SHA256_HEX];    /* source sha256 of the data set */
    char weights_sha256[FB3_SHA256_HEX]; /* of the starting weights; "" for a random start */
    char tokenizer_sha256[FB3_SHA256_HEX];
    int max_length;
} fb3_checkpoint_state;
void fb3_checkpoint_state_free(fb3_checkpoint_state *state); /* frees what it owns */

/* What is written. Everything is on the host, borrowed, and must not change until the write has returned. */
typedef struct fb3_checkpoint_content {
    const fb3_param_table *table;
    fb3_weights weights;        /* word_full is up to date */
    const float *m, *v;         /* arenas, or both NULL: weights only */
    const uint32_t *active_ids; /* [A]; needed with m and v */
    const void *spm;            /* [spm_bytes] the tokenizer's file */
    size_t spm_bytes;
    const fb3_checkpoint_state *state;
} fb3_checkpoint_content;

/* Writes atomically. When `previous` is not NULL, what `path` was becomes `previous` (with its hash file), in an order
 * that leaves a complete checkpoint at every instant (src/io/checkpoint_hash.c).
 *
 * `give_way_to`: the worker whose job this is, where other jobs must not wait for gigabytes: it is given way to every
 * megabyte or so, and all that needs no HDF5 (hash, flush, renames) is done by a short-lived thread meanwhile. NULL:
 * nobody waits, and everything is done on the calling thread. The bytes of the file are the same. */
fb3_status fb3_checkpoint_write(const char *path, const char *previous, const fb3_checkpoint_content *content,
                                fb3_worker *give_way_to);

/* Gives the checkpoint `path` a second name (a hard link, so it takes no space), with hash files of its own. */
fb3_status fb3_checkpoint_link(const char *path, const char *second);
/* Removes a checkpoint with its hash files, if it is there. Cannot fail: what is left over is harmless. */
void fb3_checkpoint_remove(const char *path);

typedef struct fb3_checkpoint fb3_checkpoint; /* an open, verified file */

/* FB3_INPUT when it is not a complete checkpoint, with the reason. A file without any hash file beside it is accepted
 * with a warning. */
fb3_status fb3_checkpoint_open(fb3_checkpoint **checkpoint, const char *path);
void fb3_checkpoint_close(fb3_checkpoint *checkpoint);
const fb3_checkpoint_state *fb3_checkpoint_state_of(const fb3_checkpoint *checkpoint);
const fb3_model_config *fb3_checkpoint_model(const fb3_checkpoint *checkpoint);
int fb3_checkpoint_targets(const fb3_checkpoint *checkpoint);
bool fb3_checkpoint_has_optimizer(const fb3_checkpoint *checkpoint);
/* The tokenizer's bytes, malloc'ed. */
fb3_status fb3_checkpoint_tokenizer(const fb3_checkpoint *checkpoint, void **spm, size_t *bytes);

/* Fills weights (arena without word rows gathered; word_full). Names, shapes and counts are checked against `table`. */
fb3_status fb3_checkpoint_read_weights(const fb3_checkpoint *checkpoint, const fb3_param_table *table,
                                       fb3_weights *weights);
/* Moments into host arenas. FB3_INPUT when the active rows of the file are not `active_ids` (other data). */
fb3_status fb3_checkpoint_read_moments(const fb3_checkpoint *checkpoint, const fb3_param_table *table, float *m,
                                       float *v, const uint32_t *active_ids);

/* The newer complete one of the two, or neither (*checkpoint NULL): what was skipped and why is warned about. */
fb3_status fb3_checkpoint_open_newest(fb3_checkpoint **checkpoint, const char *last, const char *previous);

/* Names and shapes for `inspect`, printed on standard output. */
fb3_status fb3_checkpoint_print(const char *path);

#endif
