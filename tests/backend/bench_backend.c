/* Timings of the CPU operations at the shapes of deberta-v3-base: bench_backend [threads]. Not run by ctest.
 * Products: our entry beside one multi-threaded dnnl_sgemm of the same shape. */
#include "fb3/backend.h"
#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { B = 8, LENGTH = 410, T = B * LENGTH, C = 768, H = 12, D = 64, F = 3072, R = 512, REPEATS = 7 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *array(int64_t n)
{
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 63) / 64 * 64);
    if (!x) abort();
    for (int64_t i = 0; i < n; i++) x[i] = (float)((i * 2654435761u % 2000u) / 1000.0 - 1.0) * 0.3f;
    return x;
}

/* The best of REPEATS runs of a statement, in seconds. */
#define BEST(seconds, statement)                                                                                       \
    do {                                                                                                               \
        seconds = 1e9;                                                                                                 \
        for (int repeat = 0; repeat < REPEATS; repeat++) {                                                             \
            double began = now();                                                                                      \
            statement;                                                                                                 \
            double took = now() - began;                                                                               \
            if (took < seconds) seconds = took;                                                                        \
        }                                                                                                              \
    } while (0)

static void bench_products(fb3_backend *be)
{
    const int shapes[][2] = {{3 * C, C}, {C, C}, {F, C}, {C, F}};
    printf("products, T = %d, GFLOP/s: ours / one dnnl_sgemm\n", T);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int O = shapes[s][0], I = shapes[s][1];
        double flop = 2e-9 * T * (double)O * I, ours, plain;
        float *x = array((int64_t)T * I), *w = array((int64_t)O * I), *y = array((int64_t)T * O), *b = array(O);
        float *dw = array((int64_t)O * I);
        BEST(plain, dnnl_sgemm('N', 'T', T, O, I, 1, x, I, w, I, 0, y, O));
        BEST(ours, be->ops->linear_fwd(be, y, x, w, b, T, I, O));
        printf("  O %4d I %4d  forward %4.0f / %4.0f", O, I, flop / ours, flop / plain);
        BEST(plain, dnnl_sgemm('N', 'N', T, I, O, 1, y, O, w, I, 0, x, I));
        BEST(ours, be->ops->linear_bwd_input(be, x, y, w, T, I, O, false));
        printf("   input gradient %4.0f / %4.0f", flop / ours, flop / plain);
        BEST(plain, dnnl_sgemm('T', 'N', O, I, T, 1, y, O, x, I, 1, dw, I));
        BEST(ours, be->ops->linear_bwd_weight(be, dw, b, y, x, T, I, O));
        printf("   weight gradient %4.0f / %4.0f\n", flop / ours, flop / plain);
        free(x), free(w), free(y), free(b), free(dw);
    }
}

static void bench_attention(fb3_backend *be, const fb3_ragged *ragged, float p)
{
    static int16_t table[2 * LENGTH - 1];
    int16_t *bucket = table + LENGTH - 1;
    for (int r = -(LENGTH - 1); r < LENGTH; r++) {
        double far = ceil(log(abs(r) / 128.0) / log(511.0 / 128.0) * 127.0) + 128.0;
        bucket[r] = (int16_t)(256 + (abs(r) <= 128 ? r : r < 0 ? -(int)far : (int)far));
    }
    fb3_attention att = {.H = H,
                         .D = D,
                         .scale = 1.0f / sqrtf(3.0f * D),
                         .bucket = bucket,
                         .pos_first = bucket[-(LENGTH - 1)],
                         .R = bucket[LENGTH - 1] - bucket[-(LENGTH - 1)] + 1};
    fb3_dropout drop = {.p = p};
    float *qkv = array((int64_t)T * 3 * C), *pos = array((int64_t)R * 2 * C), *out = array((int64_t)T * C);
    float *lse = array((int64_t)H * T), *dqkv = array((int64_t)T * 3 * C), *dpos = array((int64_t)R * 2 * C);
    float *dout = array((int64_t)T * C);
    double forward, backward;
    BEST(forward, be->ops->attention_fwd(be, out, lse, qkv, pos, &att, ragged, &drop));
    BEST(backward, be->ops->attention_bwd(be, dqkv, dpos, dout, out, lse, qkv, pos, &att, ragged, &drop));
    double content = 2e-9 * B * H * (double)LENGTH * LENGTH * D, position = 2e-9 * B * H * (double)LENGTH * att.R * D;
    double forward_flop = 2 * content + 2 * position, backward_flop = 5 * content + 6 * position;
    printf("attention, %d sequences of %d, dropout %.2f: forward %.1f ms (%.0f GFLOP/s), backward %.1f ms (%.0f)\n", B,
           LENGTH, (double)p, 1e3 * forward, forward_flop / forward, 1e3 * backward, backward_flop / backward);
    free(qkv), free(pos), free(out), free(lse), free(dqkv), free(dpos), free(dout);
}

static void bench_rows(fb3_backend *be, const fb3_ragged *ragged)
{
    float *x = array((int64_t)T * F), *y = array((int64_t)T * F), *s = array((int64_t)T * F),
          *dx = array((int64_t)T * F);
    float *mean = array(T), *rstd = array(T), *gamma = array(C), *beta = array(C);
    fb3_dropout off = {0}, on = {.p = 0.1f};
    double seconds;
    BEST(seconds, be->ops->add_layernorm_fwd(be, y, s, mean, rstd, x, dx, gamma, beta, 1e-7f, ragged, C, &off));
    printf("rows, T = %d, ms: add_layernorm forward %.2f", T, 1e3 * seconds);
    BEST(seconds, be->ops->add_layernorm_fwd(be, y, s, mean, rstd, x, dx, gamma, beta, 1e-7f, ragged, C, &on));
    printf(" (dropout %.2f)", 1e3 * seconds);
    BEST(seconds, be->ops->add_layernorm_bwd(be, dx, dx, gamma, beta, y, s, mean, rstd, gamma, ragged, C, &off));
    printf(", backward %.2f", 1e3 * seconds);
    BEST(seconds, be->ops->gelu_bwd(be, dx, y, s, x, (int64_t)T * F));
    printf(", gelu_bwd %.2f\n", 1e3 * seconds);
    free(x), free(y), free(s), free(dx), free(mean), free(rstd), free(gamma), free(beta);
}

static void bench_optimizer(fb3_backend *be)
{
    enum { PARAMETERS = 50000000 };
    float *p = array(PARAMETERS), *m = array(PARAMETERS), *v = array(PARAMETERS), *g = array(PARAMETERS);
    fb3_adamw_segment segment = {.count = PARAMETERS, .lr_scale = 1.0f, .decay = 0.01f};
    fb3_adamw args = {.lr = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-6, .correction1 = 0.1, .correction2 = 0.001};
    double squares, seconds;
    for (int i = 0; i < PARAMETERS; i++) v[i] = fabsf(v[i]);
    BEST(seconds, be->ops->sum_squares(be, &squares, g, PARAMETERS));
    printf("optimizer, %d M parameters: sum_squares %.1f GB/s", PARAMETERS / 1000000, 4e-9 * PARAMETERS / seconds);
    BEST(seconds, be->ops->adamw(be, p, m, v, g, NULL, &segment, &segment, 1, &args, &squares));
    printf(", adamw %.1f GB/s\n", 28e-9 * PARAMETERS / seconds);
    free(p), free(m), free(v), free(g);
}

int main(int argc, char **argv)
{
    if (argc > 1) omp_set_num_threads(atoi(argv[1]));
    fb3_backend *be;
    if (fb3_backend_open(&be, FB3_DEVICE_CPU, FB3_F32) != FB3_OK) {
        fprintf(stderr, "%s\n", fb3_error_text());
        return 1;
    }
    char text[128];
    fb3_backend_describe(be, text, sizeof text);
    printf("%s\n", text);
    static int32_t seq_start[B + 1], token_seq[T];
    static uint32_t sample[B];
    for (int b = 0; b < B; b++) {
        seq_start[b + 1] = seq_start[b] + LENGTH;
        sample[b] = (uint32_t)b;
        for (int t = seq_start[b]; t < seq_start[b + 1]; t++) token_seq[t] = b;
    }
    fb3_ragged ragged = {.T = T,
                         .B = B,
                         .max_len = LENGTH,
                         .seq_start = seq_start,
                         .token_seq = token_seq,
                         .sample = sample,
                         .seq_start_host = seq_start};
    bench_products(be);
    bench_attention(be, &ragged, 0.0f);
    bench_attention(be, &ragged, 0.1f);
    bench_rows(be, &ragged);
    bench_optimizer(be);
    fb3_backend_close(be);
    return 0;
}
