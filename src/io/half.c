/* float <-> binary16 and bfloat16, IEEE 754 round to nearest even, for weights files.
 *
 *            sign  exponent (bias)  fraction
 *   float      1       8 (127)         23
 *   half       1       5  (15)         10
 *   bfloat16   1       8 (127)          7      the upper half of a float */
#include "fb3/hf_dir.h"

#include <string.h>

#define FLOAT_MAGNITUDE 0x7fffffffu
#define FLOAT_INFINITY  0x7f800000u
#define HALF_MAGNITUDE  0x7fffu
#define HALF_INFINITY   0x7c00u
#define HALF_QUIET_NAN  0x7e00u
#define BFLOAT16_QUIET  0x0040u /* the bit that makes a NaN quiet, and the rest of its fraction not zero */

enum {
    HALF_SHIFT = 23 - 10,           /* fraction bits that a half lacks */
    HALF_REBIAS = (127 - 15) << 23, /* difference of the biases, in a float's exponent */
    BFLOAT16_SHIFT = 16,
};

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Drops the lowest `shift` bits, rounding to nearest even; a carry runs into the exponent, as it should. */
static uint32_t shift_rounded(uint32_t bits, int shift)
{
    uint32_t half = 1u << (shift - 1), odd = bits >> shift & 1;
    return (bits + half - 1 + odd) >> shift;
}

uint16_t fb3_float_to_half(float x)
{
    const float least_normal = 0x1p-14f, overflow = 65520.0f; /* halfway between the largest half and 2^16 */
    uint32_t bits = bits_of(x), sign = bits >> 16 & ~HALF_MAGNITUDE & 0xffffu, magnitude = bits & FLOAT_MAGNITUDE;
    if (magnitude > FLOAT_INFINITY) return (uint16_t)(sign | HALF_QUIET_NAN);
    if (magnitude >= bits_of(overflow)) return (uint16_t)(sign | HALF_INFINITY);
    if (magnitude >= bits_of(least_normal))
        return (uint16_t)(sign | shift_rounded(magnitude - HALF_REBIAS, HALF_SHIFT));
    /* Subnormal: the numbers around 1/2 have the spacing of subnormal halves, so the addition rounds. */
    return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
}

float fb3_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & ~HALF_MAGNITUDE & 0xffffu) << 16, magnitude = h & HALF_MAGNITUDE;
    if (magnitude >= HALF_INFINITY) return float_of(sign | FLOAT_INFINITY | (magnitude & ~HALF_INFINITY) << HALF_SHIFT);
    if (magnitude >> 10) return float_of(sign | ((magnitude << HALF_SHIFT) + HALF_REBIAS));
    return float_of(sign | bits_of((float)magnitude * 0x1p-24f));
}

uint16_t fb3_float_to_bfloat16(float x)
{
    uint32_t bits = bits_of(x);
    if ((bits & FLOAT_MAGNITUDE) > FLOAT_INFINITY) return (uint16_t)(bits >> BFLOAT16_SHIFT | BFLOAT16_QUIET);
    return (uint16_t)shift_rounded(bits, BFLOAT16_SHIFT);
}

float fb3_bfloat16_to_float(uint16_t b)
{
    return float_of((uint32_t)b << BFLOAT16_SHIFT);
}
