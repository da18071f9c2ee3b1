/* Small random models for tests: see fixture.h. */
#include "model/fixture.h"

#include "backend/device.h"
#include "model/naive_ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The same constants as in make_goldens.py. */
enum { BUCKET_ELEMENTS = 256, ROUNDS = 2, SAMPLE_FIRST = 1000, SAMPLE_STRIDE = 7, SAMPLE_STEP = 100, SCORES = 9 };
static const double matrix_variance = 1.0, vector_range = 0.1;

void must(fb3_status status)
{
    if (status != FB3_OK) fail_msg("%s", fb3_error_text());
}

json_t *fixture_golden(const char *area, const char *file)
{
    char path[4096];
    json_error_t error;
    const char *source = getenv("FB3_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/tests/%s/golden/%s", source ? source : ".", area, file);
    json_t *json = json_load_file(path, 0, &error);
    if (!json) fail_msg("%s:%d: %s", path, error.line, error.text);
    return json;
}

static int integer(const json_t *json, const char *key, int fallback)
{
    const json_t *item = json_object_get(json, key);
    return item ? (int)json_integer_value(item) : fallback;
}

static float number_at(const json_t *json, const char *key, size_t i)
{
    return (float)json_number_value(json_array_get(json_object_get(json, key), i));
}

static fb3_loss_kind loss_kind(const char *name)
{
    static const char *const names[] = {[FB3_LOSS_RMSE] = "rmse",
                                        [FB3_LOSS_MSE] = "mse",
                                        [FB3_LOSS_L1] = "l1",
                                        [FB3_LOSS_SMOOTH_L1] = "smooth_l1",
                                        [FB3_LOSS_MCRMSE] = "mcrmse"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) return (fb3_loss_kind)i;
    fail_msg("no loss '%s'", name);
    return FB3_LOSS_MSE;
}

void fixture_case_read(fixture_case *c, const json_t *json)
{
    const json_t *lengths = json_object_get(json, "lengths"), *beta = json_object_get(json, "beta");
    *c = (fixture_case){
        .model = {.vocab = integer(json, "vocab", 0),
                  .hidden = integer(json, "hidden", 0),
                  .layers = integer(json, "layers", 0),
                  .heads = integer(json, "heads", 0),
                  .intermediate = integer(json, "intermediate", 0),
                  .position_buckets = integer(json, "buckets", 256),
                  .max_relative = integer(json, "max_relative", 512),
                  .layer_norm_eps = 1e-7f,
                  .initializer_range = 0.02f},
        .targets = integer(json, "targets", 0),
        .sequences = (int)json_array_size(lengths),
        .steps = integer(json, "steps", 0),
        .loss = loss_kind(json_string_value(json_object_get(json, "loss"))),
        .beta = beta ? (float)json_number_value(beta) : 1.0f,
        .rates = {number_at(json, "dropout", 0), number_at(json, "dropout", 1), number_at(json, "dropout", 2)},
        .step = (uint32_t)integer(json, "step", 0),
    };
    c->key.k0 = (uint32_t)json_integer_value(json_array_get(json_object_get(json, "key"), 0));
    c->key.k1 = (uint32_t)json_integer_value(json_array_get(json_object_get(json, "key"), 1));
    assert_true(c->sequences <= FIXTURE_MAX_SEQUENCES);
    for (int b = 0; b < c->sequences; b++) c->lengths[b] = (int)json_integer_value(json_array_get(lengths, (size_t)b));
}

bool fixture_is_large(const fixture_case *c)
{
    enum { LONG = 300 };
    for (int b = 0; b < c->sequences; b++)
        if (c->lengths[b] > LONG) return true;
    return false;
}

uint32_t fixture_mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

uint32_t fixture_name_hash(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

static uint32_t hash_at(uint32_t stream, uint32_t e)
{
    return fixture_mix(fixture_mix(stream) + e);
}

float fixture_uniform(const char *name, uint32_t e)
{
    return (float)(hash_at(fixture_name_hash(name), e) >> 8) / 8388608.0f - 1.0f;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* In double and rounded once, as numpy does it. */
static float weight_at(const fb3_param *param, uint32_t e)
{
    double u = fixture_uniform(param->name, e);
    if (param->cols > 0) return (float)(sqrt(3.0 * matrix_variance / param->cols) * u);
    return (float)((ends_with(param->name, "LayerNorm.weight") ? 1.0 : 0.0) + vector_range * u);
}

void fixture_weights(float *arena, const fb3_param_table *table, const uint32_t *ids)
{
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        for (int64_t e = 0; e < param->count; e++) {
            int64_t source = e;
            if (ids && param->kind == FB3_PARAM_WORD)
                source = (int64_t)ids[e / param->cols] * param->cols + e % param->cols;
            arena[param->offset + e] = weight_at(param, (uint32_t)source);
        }
    }
}

static void *array(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    assert_non_null(memory);
    return memory;
}

static int length_at(const fixture_case *c, int step, int b)
{
    if (c->steps == 0) return c->lengths[b];
    int length = c->lengths[(b + step) % c->sequences] - step % 3;
    return length > 1 ? length : 1;
}

/* by_id, id_start, id_value by counting: ids are below `vocab`. */
static void group_by_id(fb3_batch *batch, int vocab)
{
    int next = 0;
    for (int id = 0; id < vocab; id++) {
        int first = next;
        for (int t = 0; t < batch->T; t++)
            if (batch->ids[t] == id) batch->by_id[next++] = t;
        if (next == first) continue;
        batch->id_start[batch->U] = first;
        batch->id_value[batch->U++] = id;
    }
    batch->id_start[batch->U] = next;
}

fb3_batch *fixture_batch(const fixture_case *c, int step, int first, int count)
{
    fb3_batch *batch = array(1, sizeof *batch);
    int start = 0; // of the first sample in the case's whole batch
    for (int b = 0; b < first; b++) start += length_at(c, step, b);
    for (int b = first; b < first + count; b++) {
        int length = length_at(c, step, b);
        batch->T += length;
        batch->max_len = length > batch->max_len ? length : batch->max_len;
    }
    batch->B = count;
    batch->Y = c->targets;
    batch->ids = array((size_t)batch->T, sizeof *batch->ids);
    batch->token_seq = array((size_t)batch->T, sizeof *batch->token_seq);
    batch->by_id = array((size_t)batch->T, sizeof *batch->by_id);
    batch->id_start = array((size_t)batch->T + 1, sizeof *batch->id_start);
    batch->id_value = array((size_t)batch->T, sizeof *batch->id_value);
    batch->seq_start = array((size_t)count + 1, sizeof *batch->seq_start);
    batch->sample = array((size_t)count, sizeof *batch->sample);
    batch->targets = array((size_t)count * (size_t)c->targets, sizeof *batch->targets);

    uint32_t id_stream = fixture_name_hash("ids") + (uint32_t)step;
    uint32_t target_stream = fixture_name_hash("targets") + (uint32_t)step;
    for (int t = 0; t < batch->T; t++)
        batch->ids[t] = (int32_t)(1 + hash_at(id_stream, (uint32_t)(start + t)) % (uint32_t)(c->model.vocab - 1));
    for (int b = 0; b < count; b++) {
        batch->seq_start[b + 1] = batch->seq_start[b] + length_at(c, step, first + b);
        for (int t = batch->seq_start[b]; t < batch->seq_start[b + 1]; t++) batch->token_seq[t] = b;
        batch->sample[b] = (uint32_t)(SAMPLE_FIRST + SAMPLE_STRIDE * (first + b) + SAMPLE_STEP * step);
        for (int y = 0; y < c->targets; y++) {
            uint32_t e = (uint32_t)((first + b) * c->targets + y);
            batch->targets[b * c->targets + y] = 1.0f + 0.5f * (float)(hash_at(target_stream, e) % SCORES);
        }
    }
    group_by_id(batch, c->model.vocab);
    return batch;
}

void fixture_batch_free(fb3_batch *batch)
{
    free(batch->ids);
    free(batch->token_seq);
    free(batch->by_id);
    free(batch->id_start);
    free(batch->id_value);
    free(batch->seq_start);
    free(batch->sample);
    free(batch->targets);
    free(batch);
}

fb3_backend *fixture_backend(const char *name)
{
    static const struct {
        const char *name;
        fb3_device device;
        fb3_dtype act;
        fb3_attention_impl attention_impl;
    } known[] = {
        {"cpu", FB3_DEVICE_CPU, FB3_F32, FB3_ATTENTION_AUTO},
        {"cpu_bf16", FB3_DEVICE_CPU, FB3_BF16, FB3_ATTENTION_AUTO},
        {"cuda", FB3_DEVICE_CUDA, FB3_F32, FB3_ATTENTION_AUTO},
        {"cuda_bf16", FB3_DEVICE_CUDA, FB3_BF16, FB3_ATTENTION_AUTO},
        {"cuda_bf16_fused", FB3_DEVICE_CUDA, FB3_BF16, FB3_ATTENTION_FUSED},
        {"cuda_bf16_reference", FB3_DEVICE_CUDA, FB3_BF16, FB3_ATTENTION_REFERENCE},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0)
            return device_open(known[i].device, known[i].act, known[i].attention_impl);
    if (strcmp(name, "naive") != 0) fail_msg("no backend '%s'", name);
    fb3_backend *be = array(1, sizeof *be);
    fb3_naive_backend(be);
    return be;
}

const char *const *fixture_backends(void)
{
    static const char *const host[] = {"naive", "cpu", NULL}, *const cuda[] = {"cuda", NULL};
    return device_is_cuda() ? cuda : host;
}

const char *const *fixture_bf16_backends(void)
{
    static const char *const cuda[] = {"cuda_bf16", "cuda_bf16_reference", NULL};
    static const char *const cpu[] = {"cpu_bf16", NULL}, *const none[] = {NULL};
    if (device_is_cuda()) return cuda;
    return fb3_backend_cpu_has(FB3_BF16) ? cpu : none;
}

static void on_each(const char *const *names, fixture_test test)
{
    for (; *names; names++) {
        fb3_backend *be = fixture_backend(*names);
        test(be);
        fixture_backend_close(be);
    }
}

void fixture_on_each_backend(fixture_test test)
{
    on_each(fixture_backends(), test);
}

void fixture_on_each_type(fixture_test test)
{
    on_each(fixture_backends(), test);
    on_each(fixture_bf16_backends(), test);
}

void fixture_backend_close(fb3_backend *be)
{
    if (strcmp(be->ops->name, "naive") == 0)
        free(be);
    else
        fb3_backend_close(be);
}

static float *arena_of(fb3_backend *be, const fb3_param_table *table)
{
    void *memory;
    must(be->ops->alloc(be, &memory, (size_t)table->size * sizeof(float)));
    must(be->ops->zero(be, memory, (size_t)table->size * sizeof(float)));
    return memory;
}

fixture_replica fixture_replica_make(fb3_backend *be, const fixture_case *c, fb3_model_mode mode)
{
    fixture_replica r = {.be = be};
    fb3_limits limits = {.B = c->sequences};
    for (int b = 0; b < c->sequences; b++) {
        limits.T += c->lengths[b];
        limits.max_len = c->lengths[b] > limits.max_len ? c->lengths[b] : limits.max_len;
    }
    must(fb3_param_table_create(&r.table, &c->model, c->model.vocab, c->targets));
    r.arenas.param = arena_of(be, r.table);
    r.arenas.param_act = r.arenas.param;
    if (mode != FB3_INFERENCE) {
        r.arenas.grad = arena_of(be, r.table);
        r.arenas.m = arena_of(be, r.table);
        r.arenas.v = arena_of(be, r.table);
    }
    float *host = array((size_t)r.table->size, sizeof *host);
    fixture_weights(host, r.table, NULL);
    must(be->ops->upload(be, r.arenas.param, host, (size_t)r.table->size * sizeof *host));
    free(host);
    if (be->act != FB3_F32) {
        must(be->ops->alloc(be, &r.arenas.param_act, (size_t)r.table->size * fb3_dtype_size(be->act)));
        must(be->ops->cast_to_act(be, r.arenas.param_act, r.arenas.param, r.table->size));
    }
    must(fb3_deberta_create(&r.model, be, r.table, &r.arenas, &limits, mode));
    return r;
}

void fixture_replica_free(fixture_replica *r)
{
    fb3_deberta_free(r->model);
    if (r->arenas.param_act != r->arenas.param) r->be->ops->free(r->be, r->arenas.param_act);
    r->be->ops->free(r->be, r->arenas.param);
    r->be->ops->free(r->be, r->arenas.grad);
    r->be->ops->free(r->be, r->arenas.m);
    r->be->ops->free(r->be, r->arenas.v);
    fb3_param_table_free(r->table);
}

float *fixture_download(const fixture_replica *r, const float *arena)
{
    float *host = array((size_t)r->table->size, sizeof *host);
    must(r->be->ops->download(r->be, host, arena, (size_t)r->table->size * sizeof *host));
    return host;
}

void fixture_loss(const fixture_replica *r, fb3_loss_kind kind, float beta, double *sums_host)
{
    double sums[FB3_LOSS_SUMS(FB3_MAX_TARGETS)];
    must(fb3_deberta_loss_begin(r->model));
    must(fb3_deberta_loss_add(r->model, kind, beta));
    must(fb3_deberta_loss_fetch(r->model, sums));
    must(r->be->ops->sync(r->be));
    for (int i = 0; i < FB3_LOSS_SUMS(r->table->targets); i++) sums_host[i] += sums[i];
}

float *fixture_gradients(const fixture_replica *r)
{
    return fixture_download(r, r->arenas.grad);
}

static int64_t sketch_buckets(int64_t count)
{
    int64_t buckets = (count + BUCKET_ELEMENTS - 1) / BUCKET_ELEMENTS;
    return buckets > 0 ? buckets : 1;
}

int64_t fixture_sketch_size(int64_t count)
{
    return ROUNDS * sketch_buckets(count);
}

void fixture_sketch(double *sketch, const float *values, int64_t count)
{
    const int64_t buckets = sketch_buckets(count);
    for (int64_t i = 0; i < fixture_sketch_size(count); i++) sketch[i] = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t stream = fixture_name_hash("sketch") + (uint32_t)round;
        for (int64_t e = 0; e < count; e++) {
            uint32_t h = hash_at(stream, (uint32_t)e);
            sketch[round * buckets + (int64_t)(h >> 1) % buckets] += h & 1 ? -(double)values[e] : (double)values[e];
        }
    }
}

double fixture_distance(const float *a, const float *b, int64_t count)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        worst = fmax(worst, isfinite(a[i]) ? fabs((double)a[i] - b[i]) : INFINITY);
        largest = fmax(largest, fabs((double)b[i]));
    }
    return worst == 0 ? 0 : worst / largest;
}
