/* The optimizer over ranges of the arenas: the norm of the gradient, and AdamW (Loshchilov and Hutter 2019) with the
 * operations in the order of torch.optim.AdamW:
 *   p *= 1 - rate decay;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2
 *   p -= (rate / correction1) m / (sqrt(v) / sqrt(correction2) + eps) */
#include "act.h"
#include "ops.h"
#include <math.h>
#include <string.h>

enum { BLOCK = 1 << 14 }; /* elements of one partial sum, and of one piece of work */

typedef double vd __attribute__((vector_size(4 * LANES)));
enum { DOUBLE_LANES = LANES / 2 };

static double sum_doubles(vd v)
{
    double sum = 0.0;
    for (int lane = 0; lane < DOUBLE_LANES; lane++) sum += v[lane];
    return sum;
}

/* The two halves of a vector of floats as doubles. */
static inline void widen(vf x, vd *low, vd *high)
{
    typedef float half __attribute__((vector_size(2 * LANES)));
    half part[2];
    memcpy(part, &x, sizeof part);
    *low = __builtin_convertvector(part[0], vd);
    *high = __builtin_convertvector(part[1], vd);
}

static double block_sum_squares(const float *x, int64_t n)
{
    vd low_sum = {0}, high_sum = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vd low, high;
        widen(vf_load(x + i, n - i), &low, &high);
        low_sum += low * low;
        high_sum += high * high;
    }
    return sum_doubles(low_sum + high_sum);
}

fb3_status CPU(sum_squares)(fb3_backend *be, double *sum, const float *x, int64_t n)
{
    int64_t blocks = n / BLOCK + (n % BLOCK != 0);
    float *memory;
    FB3_TRY(fb3_cpu_workspace(be, &memory, (size_t)blocks * (sizeof(double) / sizeof(float))));
    double *partial = (double *)(void *)memory; // partial [blocks]
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t start = block * BLOCK;
        partial[block] = block_sum_squares(x + start, n - start < BLOCK ? n - start : BLOCK);
    }
    *sum = 0.0;
    for (int64_t block = 0; block < blocks; block++) *sum += partial[block];
    return FB3_OK;
}

/* What a segment's step needs, rounded to float once. */
typedef struct adamw_step {
    float grad_scale, keep, rate, toward_g, beta2, toward_g2, root_correction2, eps;
} adamw_step;

/* copy [n]: p as activations, or NULL. */
static void adamw_block(float *p, float *m, float *v, const float *g, act *copy, int64_t n, const adamw_step *step)
{
    for (int64_t i = 0; i < n; i += LANES) {
        vf grad = vf_load(g + i, n - i) * step->grad_scale;
        vf m_i = vf_load(m + i, n - i), v_i = vf_load(v + i, n - i);
        m_i = vf_fma(grad - m_i, vf_set(step->toward_g), m_i);
        v_i = vf_fma(step->toward_g2 * grad, grad, step->beta2 * v_i);
        vf denominator = vf_sqrt(v_i) / step->root_correction2 + step->eps;
        vf p_i = vf_load(p + i, n - i) * step->keep - step->rate * (m_i / denominator);
        vf_store(m + i, m_i, n - i);
        vf_store(v + i, v_i, n - i);
        vf_store(p + i, p_i, n - i);
        if (copy) act_store(copy + i, p_i, n - i);
    }
}

fb3_status CPU(adamw)(fb3_backend *be, float *p, float *m, float *v, const float *g, void *p_act,
                      const fb3_adamw_segment *segments, const fb3_adamw_segment *segments_host, int count,
                      const fb3_adamw *args, const double *sum_squares)
{
    (void)be;
    (void)segments; /* the host's copy is the same memory here */
    if (!isfinite(*sum_squares)) return FB3_OK;
    double clip = args->max_norm > 0.0 ? args->max_norm / (sqrt(*sum_squares) + 1e-6) : 1.0;
    act *copy = p_act == p ? NULL : p_act;
#pragma omp parallel
    for (int s = 0; s < count; s++) {
        const fb3_adamw_segment *segment = &segments_host[s];
        double rate = args->lr * (double)segment->lr_scale;
        adamw_step step = {.grad_scale = (float)fmin(1.0, clip),
                           .keep = fb3_adamw_decay_factor(args, segment),
                           .rate = (float)(rate / args->correction1),
                           .toward_g = (float)(1.0 - args->beta1),
                           .beta2 = (float)args->beta2,
                           .toward_g2 = (float)(1.0 - args->beta2),
                           .root_correction2 = (float)sqrt(args->correction2),
                           .eps = (float)args->eps};
#pragma omp for schedule(static) nowait
        for (int64_t start = 0; start < segment->count; start += BLOCK) {
            int64_t at = segment->offset + start, n = segment->count - start < BLOCK ? segment->count - start : BLOCK;
            adamw_block(p + at, m + at, v + at, g + at, copy ? copy + at : NULL, n, &step);
        }
    }
    return FB3_OK;
}
