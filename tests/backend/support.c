#include "support.h"
#include "cpu/cpu.h"
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 16, THREADS = 3 };
static const uint32_t sentinel = 0xFFABCDEFu; /* a NaN nobody computes */

const fb3_dropout no_dropout = {0};
const fb3_dropout some_dropout = {.p = 0.25f, .key = {0x12345678u, 0x9abcdef0u}, .step = 7, .site = 21};

static uint64_t random_state = 88172645463325252ull;
static double uniform(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

/* The bf16 memory of a buffer, in a list of all that live. */
typedef struct twin {
    struct twin *next;
    float *data;
    int64_t n;
    uint16_t *half, *memory;
} twin;

static twin *twins;
static fb3_dtype running;
static const uint16_t half_sentinel = 0xFFABu;

fb3_dtype act_type(void)
{
    return running;
}

void *act(const buffer *x)
{
    assert_non_null(x->twin);
    return running == FB3_BF16 ? (void *)x->twin->half : (void *)x->data;
}

/* To nearest, ties to even; NaN stays NaN. */
static uint16_t to_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return 0x7FC0u;
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
static float from_half(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float as_act(float x)
{
    return running == FB3_BF16 ? from_half(to_half(x)) : x;
}

static buffer with_twin(buffer b)
{
    twin *made = calloc(1, sizeof *made);
    assert_non_null(made);
    made->memory = malloc((size_t)(b.n + 2 * GUARD) * sizeof *made->memory);
    assert_non_null(made->memory);
    *made = (twin){.next = twins, .data = b.data, .n = b.n, .memory = made->memory, .half = made->memory + GUARD};
    for (int i = 0; i < GUARD; i++) made->memory[i] = made->half[b.n + i] = half_sentinel;
    for (int64_t i = 0; i < b.n; i++) b.data[i] = b.start[i] = from_half(to_half(b.data[i]));
    twins = b.twin = made;
    return b;
}

static void twins_fill(void)
{
    for (twin *t = twins; t; t = t->next)
        for (int64_t i = 0; i < t->n; i++) t->half[i] = to_half(t->data[i]);
}
static void twins_read(void)
{
    for (twin *t = twins; t; t = t->next) {
        for (int64_t i = 0; i < t->n; i++) t->data[i] = from_half(t->half[i]);
        for (int i = 0; i < GUARD; i++) {
            assert_int_equal(t->memory[i], half_sentinel);
            assert_int_equal(t->half[t->n + i], half_sentinel);
        }
    }
}

static buffer buffer_make(int64_t n)
{
    buffer b = {.n = n};
    b.memory = malloc((size_t)(n + 2 * GUARD) * sizeof(float));
    b.start = malloc((size_t)(n + 1) * sizeof(float));
    assert_non_null(b.memory);
    assert_non_null(b.start);
    b.data = b.memory + GUARD;
    for (int i = 0; i < GUARD; i++) {
        memcpy(b.memory + i, &sentinel, sizeof sentinel);
        memcpy(b.data + n + i, &sentinel, sizeof sentinel);
    }
    return b;
}

buffer buffer_random(int64_t n)
{
    buffer b = buffer_make(n);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0; /* twelve uniforms: mean 6, variance 1 */
        for (int k = 0; k < 12; k++) sum += uniform();
        b.data[i] = b.start[i] = (float)(sum - 6.0);
    }
    return b;
}

buffer buffer_output(int64_t n)
{
    buffer b = buffer_make(n);
    for (int64_t i = 0; i < n; i++) b.data[i] = b.start[i] = NAN;
    return b;
}

buffer buffer_random_act(int64_t n)
{
    return with_twin(buffer_random(n));
}

buffer buffer_output_act(int64_t n)
{
    return with_twin(buffer_output(n));
}

buffer buffer_copy(const buffer *from)
{
    buffer b = buffer_make(from->n);
    memcpy(b.data, from->data, (size_t)from->n * sizeof(float));
    memcpy(b.start, from->data, (size_t)from->n * sizeof(float));
    return from->twin ? with_twin(b) : b;
}

void buffer_scale(buffer *x, float a, float b)
{
    for (int64_t i = 0; i < x->n; i++) {
        float scaled = a * x->data[i] + b;
        x->data[i] = x->start[i] = x->twin ? from_half(to_half(scaled)) : scaled;
    }
}

void buffer_free(buffer *x)
{
    for (twin **at = &twins; x->twin && *at; at = &(*at)->next) {
        if (*at != x->twin) continue;
        *at = x->twin->next;
        free(x->twin->memory);
        free(x->twin);
        break;
    }
    free(x->memory);
    free(x->start);
    *x = (buffer){0};
}

double *zeros(int64_t n)
{
    double *x = calloc((size_t)n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

double *doubles(const buffer *x)
{
    double *d = zeros(x->n);
    for (int64_t i = 0; i < x->n; i++) d[i] = (double)x->data[i];
    return d;
}

void expect_close_columns(const char *what, const buffer *got, const double *want, int width, int first, int count,
                          double tolerance)
{
    double largest = 0.0, worst = 0.0;
    int64_t at = 0;
    if (got->twin && running == FB3_BF16) tolerance = fmax(tolerance, BF16_TOLERANCE);
    for (int64_t i = 0; i < got->n; i++) {
        int column = (int)(i % width);
        if (column < first || column >= first + count) continue;
        if (!isfinite(got->data[i])) fail_msg("%s[%lld] is %g", what, (long long)i, (double)got->data[i]);
        double error = fabs((double)got->data[i] - want[i]);
        largest = fmax(largest, fabs(want[i]));
        if (error > worst) {
            worst = error;
            at = i;
        }
    }
    if (worst > tolerance * largest)
        fail_msg("%s[%lld] is %.9g, not %.9g: off by %.3g of the largest value %.3g, allowed %.3g", what, (long long)at,
                 (double)got->data[at], want[at], worst / largest, largest, tolerance);
}

void expect_close(const char *what, const buffer *got, const double *want, double tolerance)
{
    expect_close_columns(what, got, want, 1, 0, 1, tolerance);
}

layout layout_make(const int *lengths, int B)
{
    layout l = {0};
    l.seq_start = calloc((size_t)B + 1, sizeof *l.seq_start);
    l.sample = calloc((size_t)B + 1, sizeof *l.sample);
    assert_non_null(l.seq_start);
    assert_non_null(l.sample);
    int max_len = 0;
    for (int b = 0; b < B; b++) {
        l.seq_start[b + 1] = l.seq_start[b] + lengths[b];
        l.sample[b] = 1000u + 17u * (uint32_t)b;
        if (lengths[b] > max_len) max_len = lengths[b];
    }
    int T = l.seq_start[B];
    l.token_seq = calloc((size_t)T + 1, sizeof *l.token_seq);
    assert_non_null(l.token_seq);
    for (int b = 0; b < B; b++)
        for (int t = l.seq_start[b]; t < l.seq_start[b + 1]; t++) l.token_seq[t] = b;
    l.ragged = (fb3_ragged){.T = T,
                            .B = B,
                            .max_len = max_len,
                            .seq_start = l.seq_start,
                            .token_seq = l.token_seq,
                            .sample = l.sample,
                            .seq_start_host = l.seq_start};
    return l;
}

void layout_free(layout *l)
{
    free(l->seq_start);
    free(l->token_seq);
    free(l->sample);
}

double reference_keep(const fb3_dropout *drop, uint32_t sample, uint64_t e)
{
    if (drop->p <= 0.0f) return 1.0;
    fb3_philox block = fb3_philox4x32((uint32_t)(e >> 2), drop->site, sample, drop->step, drop->key.k0, drop->key.k1);
    return (double)block.word[e & 3] >= (double)drop->p * 4294967296.0 ? 1.0 / (1.0 - (double)drop->p) : 0.0;
}

double reference_keep_row(const fb3_dropout *drop, const layout *l, int t, int width, int c)
{
    int b = l->token_seq[t];
    return reference_keep(drop, l->sample[b], (uint64_t)(t - l->seq_start[b]) * (uint64_t)width + (uint64_t)c);
}

static void check_sentinels(const buffer *x)
{
    for (int i = 0; i < GUARD; i++) {
        assert_memory_equal(x->memory + i, &sentinel, sizeof sentinel);
        assert_memory_equal(x->data + x->n + i, &sentinel, sizeof sentinel);
    }
}

/* One table: 1, 2 and 3 threads, the first one's outputs being the ones to repeat. */
static void run_table(const op_case *c, fb3_cpu_table table)
{
    float *first[sizeof c->outputs / sizeof *c->outputs] = {0};
    for (int threads = 1; threads <= THREADS; threads++) {
        omp_set_num_threads(threads);
        fb3_backend be = {.layer = -1};
        assert_int_equal(fb3_backend_open_cpu_table(&be, table), FB3_OK);
        running = be.act;
        for (int i = 0; c->outputs[i]; i++)
            memcpy(c->outputs[i]->data, c->outputs[i]->start, (size_t)c->outputs[i]->n * sizeof(float));
        if (running == FB3_BF16) twins_fill();
        if (c->run(&be, c->context) != FB3_OK) fail_msg("%s", fb3_error_text());
        if (running == FB3_BF16) twins_read();
        be.ops->close(&be);
        assert_int_equal(omp_get_max_threads(), threads);
        for (int i = 0; c->outputs[i]; i++) {
            size_t bytes = (size_t)c->outputs[i]->n * sizeof(float);
            check_sentinels(c->outputs[i]);
            if (threads == 1) {
                first[i] = malloc(bytes + 1);
                assert_non_null(first[i]);
                memcpy(first[i], c->outputs[i]->data, bytes);
            } else if (memcmp(first[i], c->outputs[i]->data, bytes) != 0) {
                fail_msg("output %d has other bits with %d threads than with one (table %d)", i, threads, (int)table);
            }
        }
        if (threads == 1 && c->check) c->check(c->context);
    }
    for (int i = 0; c->outputs[i]; i++) free(first[i]);
}

void run_case(const op_case *c)
{
    for (fb3_cpu_table table = FB3_CPU_BASELINE; table < FB3_CPU_TABLES; table++)
        if (fb3_cpu_has_table(table)) run_table(c, table);
}

static double weighted(reference_forward forward, void *context, double *y, const double *weights, int64_t y_count)
{
    forward(y, context);
    double sum = 0.0;
    for (int64_t i = 0; i < y_count; i++) sum += weights[i] * y[i];
    return sum;
}

void expect_gradient(const char *what, reference_forward forward, void *context, double *x, int64_t x_count,
                     const double *gradient, const double *weights, int64_t y_count)
{
    const double step = 1e-5, tolerance = 1e-7; /* error of the difference about step^2 and 1e-16 / step */
    double *y = zeros(y_count), largest = 0.0;
    for (int64_t i = 0; i < x_count; i++) largest = fmax(largest, fabs(gradient[i]));
    int64_t stride = x_count > 40 ? x_count / 40 : 1;
    for (int64_t i = 0; i < x_count; i += stride) {
        double saved = x[i];
        x[i] = saved + step;
        double above = weighted(forward, context, y, weights, y_count);
        x[i] = saved - step;
        double below = weighted(forward, context, y, weights, y_count);
        x[i] = saved;
        double slope = (above - below) / (2.0 * step);
        if (fabs(slope - gradient[i]) > tolerance * (largest + 1.0))
            fail_msg("reference gradient %s[%lld] is %.12g, differences say %.12g", what, (long long)i, gradient[i],
                     slope);
    }
    free(y);
}
