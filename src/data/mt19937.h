/* numpy's legacy random numbers (numpy.random.RandomState), as far as stratified folds need them. Private to `data`.
 * Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998); the seeding is Knuth's, as RandomState(seed) does
 * for an integer seed; bounded integers are numpy's masked rejection. */
#ifndef FB3_MT19937_H
#define FB3_MT19937_H

#include <stdint.h>

enum { FB3_MT19937_WORDS = 624 };

typedef struct fb3_mt19937 {
    uint32_t word[FB3_MT19937_WORDS];
    int next; /* FB3_MT19937_WORDS: all used up */
} fb3_mt19937;

void fb3_mt19937_seed(fb3_mt19937 *random, uint32_t seed);
uint32_t fb3_mt19937_next(fb3_mt19937 *random);

/* Uniform in 0..max. What RandomState.choice(max + 1) and .randint(0, max + 1) draw; max 0 draws nothing. */
uint32_t fb3_mt19937_bounded(fb3_mt19937 *random, uint32_t max);

/* RandomState.shuffle. */
void fb3_mt19937_shuffle(fb3_mt19937 *random, int32_t *items, int64_t count);

#endif
