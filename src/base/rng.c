/* What is built on Philox: keys, normal deviates, the order of samples. All of it is a pure function of its arguments
 * (see fb3/rng.h for the counters' layout and the sources of the methods). */
#include "fb3/rng.h"

#include <assert.h>
#include <math.h>

enum { WORDS_PER_BLOCK = 4 };

static const double TWO_PI = 6.283185307179586476925286766559;
static const double TWO_TO_MINUS_32 = 1.0 / 4294967296.0;

/* Seed and fold are mixed by Philox itself, so nearby seeds and folds give unrelated keys. */
fb3_rng_key fb3_rng_key_make(uint64_t seed, int fold)
{
    fb3_philox mixed = fb3_philox4x32((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)fold, FB3_STREAM_KEY, 0, 0);
    return (fb3_rng_key){mixed.word[0], mixed.word[1]};
}

/* Box and Muller: two uniforms give two independent normals. The radius takes (0, 1], where log is finite. In double:
 * differences between mathematical libraries then hardly ever survive the rounding to float. */
static void normal_pair(double out[2], uint32_t radius_word, uint32_t angle_word)
{
    double radius = sqrt(-2.0 * log(((double)radius_word + 1.0) * TWO_TO_MINUS_32));
    double angle = TWO_PI * ((double)angle_word * TWO_TO_MINUS_32);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

void fb3_rng_normal(float *out, int64_t count, float sigma, fb3_rng_key key, uint32_t tensor)
{
    for (int64_t first = 0; first < count; first += WORDS_PER_BLOCK) {
        uint64_t block = (uint64_t)first / WORDS_PER_BLOCK;
        fb3_philox random =
            fb3_philox4x32((uint32_t)block, (uint32_t)(block >> 32), tensor, FB3_STREAM_INIT, key.k0, key.k1);
        double normal[WORDS_PER_BLOCK];
        normal_pair(normal, random.word[0], random.word[1]);
        normal_pair(normal + 2, random.word[2], random.word[3]);
        for (int64_t i = 0; i < WORDS_PER_BLOCK && first + i < count; i++)
            out[first + i] = (float)(normal[i] * (double)sigma);
    }
}

enum {
    FEISTEL_ROUNDS = 8,
    /* Small n are walked inside 256 numbers: a network over exactly 16 numbers makes even permutations only, and half
     * of all orders would never come. */
    FEISTEL_MIN_HALF_BITS = 4,
};

/* One pass of a balanced Feistel network over numbers of 2 * half_bits bits. */
static uint64_t feistel(uint64_t x, int half_bits, fb3_rng_key key, uint32_t epoch)
{
    uint64_t mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
        fb3_philox random = fb3_philox4x32((uint32_t)right, round, epoch, FB3_STREAM_ORDER, key.k0, key.k1);
        uint64_t next = left ^ (random.word[0] & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

int64_t fb3_permute(int64_t i, int64_t n, fb3_rng_key key, uint32_t epoch)
{
    assert(n >= 1 && i >= 0 && i < n);
    int half_bits = FEISTEL_MIN_HALF_BITS;
    while (half_bits < 32 && (UINT64_C(1) << (2 * half_bits)) < (uint64_t)n) half_bits++;
    /* The network permutes a domain of at most 4 n numbers (256 for small n); the walk from an element of the range
     * comes back to the range, because a permutation's cycles close. */
    uint64_t x = (uint64_t)i;
    do x = feistel(x, half_bits, key, epoch);
    while (x >= (uint64_t)n);
    return (int64_t)x;
}
