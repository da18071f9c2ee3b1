/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as
 * 1, 2, 3", SC'11). Every random number of a run is a pure function of (seed, fold, epoch, step, global sample, site,
 * element): no state, so results depend on neither ranks nor threads nor restarts, and the CPU and CUDA agree. The
 * function is inline and plain C so that CUDA C kernels include this very file. */
#ifndef FB3_RNG_H
#define FB3_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define FB3_HOST_DEVICE __host__ __device__
#else
#define FB3_HOST_DEVICE
#endif

typedef struct fb3_philox {
    uint32_t word[4];
} fb3_philox;

static inline FB3_HOST_DEVICE fb3_philox fb3_philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                                                        uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    fb3_philox r = {{c0, c1, c2, c3}};
    return r;
}

/* Streams keep uses apart: they are the last counter word of everything that is not dropout. */
enum { FB3_STREAM_ORDER = 0xF0000001u, FB3_STREAM_INIT = 0xF0000002u, FB3_STREAM_KEY = 0xF0000003u };

/* The Philox key of a (seed, fold) pair. fold is -1 where there is none. */
typedef struct fb3_rng_key {
    uint32_t k0, k1;
} fb3_rng_key;
fb3_rng_key fb3_rng_key_make(uint64_t seed, int fold);

/* Uniform in [0, 1) with 24 bits. */
static inline FB3_HOST_DEVICE float fb3_uniform24(uint32_t word)
{
    return (float)(word >> 8) * (1.0f / 16777216.0f);
}

/* `count` normal deviates N(0, sigma^2) by Box-Muller: element e of tensor `tensor` depends on (key, tensor, e) only.
 */
void fb3_rng_normal(float *out, int64_t count, float sigma, fb3_rng_key key, uint32_t tensor);

/* A pseudo-random permutation of 0..n-1, evaluated one element at a time without memory: an 8-round Feistel network
 * whose round function is Philox, walked until it lands inside the range (Black and Rogaway, "Ciphers with arbitrary
 * finite domains", 2002). Returns the element at position `i`. n >= 1, 0 <= i < n. */
int64_t fb3_permute(int64_t i, int64_t n, fb3_rng_key key, uint32_t epoch);

#endif
