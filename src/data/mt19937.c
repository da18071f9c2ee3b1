/* MT19937 and what numpy draws from it; see mt19937.h. */
#include "mt19937.h"

enum { MIDDLE = 397 };
static const uint32_t UPPER_BIT = 0x80000000u, LOWER_BITS = 0x7fffffffu, TWIST = 0x9908b0dfu;
static const uint32_t SEED_FACTOR = 1812433253u, TEMPER_B = 0x9d2c5680u, TEMPER_C = 0xefc60000u;

void fb3_mt19937_seed(fb3_mt19937 *random, uint32_t seed)
{
    random->word[0] = seed;
    for (uint32_t i = 1; i < FB3_MT19937_WORDS; i++) {
        uint32_t before = random->word[i - 1];
        random->word[i] = SEED_FACTOR * (before ^ before >> 30) + i;
    }
    random->next = FB3_MT19937_WORDS;
}

static void generate(fb3_mt19937 *random)
{
    uint32_t *word = random->word;
    for (int i = 0; i < FB3_MT19937_WORDS; i++) {
        uint32_t joined = (word[i] & UPPER_BIT) | (word[(i + 1) % FB3_MT19937_WORDS] & LOWER_BITS);
        word[i] = word[(i + MIDDLE) % FB3_MT19937_WORDS] ^ joined >> 1 ^ (joined & 1 ? TWIST : 0);
    }
    random->next = 0;
}

uint32_t fb3_mt19937_next(fb3_mt19937 *random)
{
    if (random->next == FB3_MT19937_WORDS) generate(random);
    uint32_t y = random->word[random->next++];
    y ^= y >> 11;
    y ^= y << 7 & TEMPER_B;
    y ^= y << 15 & TEMPER_C;
    return y ^ y >> 18;
}

uint32_t fb3_mt19937_bounded(fb3_mt19937 *random, uint32_t max)
{
    if (max == 0) return 0;
    uint32_t mask = UINT32_MAX >> __builtin_clz(max);
    uint32_t value;
    do value = fb3_mt19937_next(random) & mask;
    while (value > max);
    return value;
}

void fb3_mt19937_shuffle(fb3_mt19937 *random, int32_t *items, int64_t count)
{
    for (int64_t i = count - 1; i > 0; i--) {
        uint32_t j = fb3_mt19937_bounded(random, (uint32_t)i);
        int32_t item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}
