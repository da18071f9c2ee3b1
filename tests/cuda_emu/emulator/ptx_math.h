/* Arithmetic of the rarer PTX instructions: modifiers, conversions, half precision, bit fields. Internal to PTX mode.
 */
#ifndef CUDAEMU_PTX_MATH_H
#define CUDAEMU_PTX_MATH_H

#include "ptx_program.h"

#include <cstring>

namespace cudaemu
{
namespace ptx
{

static inline float as_float(uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof f);
    return f;
}
static inline uint64_t of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}
static inline double as_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}
static inline uint64_t of_double(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}
static inline uint64_t low_bits(uint64_t v, unsigned bits)
{
    return bits >= 64 ? v : v & ((1ull << bits) - 1);
}
static inline int64_t sign_extended(uint64_t v, unsigned bits)
{
    return bits >= 64 ? (int64_t)v : (int64_t)(v << (64 - bits)) >> (64 - bits);
}

uint64_t float32(const Instruction &in, uint64_t a, uint64_t b, uint64_t c);
uint64_t float64(const Instruction &in, uint64_t a, uint64_t b, uint64_t c);
uint64_t half(const Instruction &in, uint64_t a, uint64_t b, uint64_t c);
float half_value(Type t, uint64_t bits);
uint64_t convert(const Instruction &in, uint64_t a, uint64_t b);
uint64_t extend(const Instruction &in, uint64_t a);
uint64_t min_max(const Instruction &in, uint64_t a, uint64_t b);
uint64_t multiply_high(Type t, uint64_t a, uint64_t b);
uint64_t shift(const Instruction &in, uint64_t a, uint64_t b);
uint64_t lop3(unsigned table, uint64_t a, uint64_t b, uint64_t c);
uint64_t funnel_shift(const Instruction &in, uint64_t a, uint64_t b, uint64_t c);
uint64_t permute(uint64_t a, uint64_t b, uint64_t select);
uint64_t extract_field(const Instruction &in, uint64_t a, uint64_t at, uint64_t length);
uint64_t insert_field(const Instruction &in, uint64_t from, uint64_t into, uint64_t at, uint64_t length);
uint64_t find_bit(const Instruction &in, uint64_t a);
uint64_t reversed(uint64_t a, unsigned bits);
/* What an atomic leaves in memory. */
uint64_t atomic_result(const Instruction &in, uint64_t old, uint64_t b, uint64_t c);

int bytes_of(Type t);
bool is_signed(Type t);

} // namespace ptx
} // namespace cudaemu

#endif
