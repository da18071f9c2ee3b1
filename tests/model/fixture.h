/* Small random models for tests. Weights, token ids and targets are an integer hash of (name or step, element), the
 * same in tests/model/make_goldens.py, so golden files hold results only. */
#ifndef FB3_TESTS_MODEL_FIXTURE_H
#define FB3_TESTS_MODEL_FIXTURE_H

#include "fb3/deberta.h"

#include <jansson.h>

enum { FIXTURE_MAX_SEQUENCES = 16 };

/* Ends the test with the error's text. */
void must(fb3_status status);

/* golden/<file> beside the test's source, in tests/<area>. The caller releases it. */
json_t *fixture_golden(const char *area, const char *file);

typedef struct fixture_case {
    fb3_model_config model;
    int targets;
    int lengths[FIXTURE_MAX_SEQUENCES], sequences;
    int steps; /* above 0: lengths change from step to step */
    fb3_loss_kind loss;
    float beta;
    fb3_dropout_rates rates;
    fb3_rng_key key;
    uint32_t step;
} fixture_case;

void fixture_case_read(fixture_case *c, const json_t *json);
/* One of those that FB3_TEST_SIZES=small leaves out. */
bool fixture_is_large(const fixture_case *c);

uint32_t fixture_mix(uint32_t x);
uint32_t fixture_name_hash(const char *name);
/* Value e of tensor `name` in [-1, 1). */
float fixture_uniform(const char *name, uint32_t e);
/* All parameters, into an arena on the host. Word rows are those of `ids`, or 0, 1, 2, ... when it is NULL. */
void fixture_weights(float *arena, const fb3_param_table *table, const uint32_t *ids);

/* Samples first .. first + count - 1 of the case's batch of a step. Every row is active. */
fb3_batch *fixture_batch(const fixture_case *c, int step, int first, int count);
void fixture_batch_free(fb3_batch *batch);

/* A backend by name: "naive" (naive_ops.c), "cpu", "cpu_bf16" where the processor has it; "cuda", "cuda_bf16",
 * "cuda_bf16_fused" with our own attention kernels or nothing, "cuda_bf16_reference". */
fb3_backend *fixture_backend(const char *name);
void fixture_backend_close(fb3_backend *backend);

/* The names of what a test runs on, up to NULL: "naive" and "cpu", or by FB3_TEST_DEVICE=cuda "cuda"
 * (tests/backend/device.h). Then those in bf16; none on a processor that has it not. */
const char *const *fixture_backends(void);
const char *const *fixture_bf16_backends(void);
typedef void (*fixture_test)(fb3_backend *be);
void fixture_on_each_backend(fixture_test test);
/* For what must hold to the bit in bf16 too. */
void fixture_on_each_type(fixture_test test);

/* A replica with zero gradients and moments. */
typedef struct fixture_replica {
    fb3_backend *be;
    fb3_param_table *table;
    fb3_arenas arenas;
    fb3_deberta *model;
} fixture_replica;

fixture_replica fixture_replica_make(fb3_backend *be, const fixture_case *c, fb3_model_mode mode);
void fixture_replica_free(fixture_replica *r);
/* sums_host[1 + Y] += the loss sums of the loaded batch. */
void fixture_loss(const fixture_replica *r, fb3_loss_kind kind, float beta, double *sums_host);
/* The gradient arena on the host; the caller frees. */
float *fixture_gradients(const fixture_replica *r);
float *fixture_download(const fixture_replica *r, const float *arena);

/* The two-round sketch of make_goldens.py; `sketch` has fixture_sketch_size(count) numbers. */
int64_t fixture_sketch_size(int64_t count);
void fixture_sketch(double *sketch, const float *values, int64_t count);

/* max |a - b| / max |b| */
double fixture_distance(const float *a, const float *b, int64_t count);

#endif
