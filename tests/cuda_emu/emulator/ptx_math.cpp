#ifndef CUDAEMU_CHECK
#include "ptx_math.h"

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace cudaemu
{
namespace ptx
{

/* --- floats ------------------------------------------------------------------------------------------------------- */

static float flushed(float f, bool flush)
{
    return flush && std::fpclassify(f) == FP_SUBNORMAL ? copysignf(0.0f, f) : f;
}

template <class Real> static Real compute(Sub sub, Real a, Real b, Real c, bool nan_wins)
{
    switch (sub) {
    case F_ADD:
        return a + b;
    case F_SUB:
        return a - b;
    case F_MUL:
        return a * b;
    case F_FMA:
        return std::fma(a, b, c);
    case F_DIV:
        return a / b;
    case F_MIN:
        return nan_wins && (std::isnan(a) || std::isnan(b)) ? (Real)NAN : std::fmin(a, b);
    case F_MAX:
        return nan_wins && (std::isnan(a) || std::isnan(b)) ? (Real)NAN : std::fmax(a, b);
    case F_NEG:
        return -a;
    case F_ABS:
        return std::fabs(a);
    case F_SQRT:
        return std::sqrt(a);
    case F_RSQRT:
        return 1 / std::sqrt(a);
    case F_RCP:
        return 1 / a;
    case F_EX2:
        return std::exp2(a);
    case F_LG2:
        return std::log2(a);
    case F_SIN:
        return std::sin(a);
    case F_COS:
        return std::cos(a);
    case F_TANH:
        return std::tanh(a);
    case F_COPYSIGN:
        return std::copysign(b, a);
    default:
        return a;
    }
}

/* Rounded towards a side; not inlined, so that nothing moves across the change of mode. */
template <class Real>
static __attribute__((noinline)) Real compute_rounded(const Instruction &in, Real a, Real b, Real c)
{
    volatile Real x = a, y = b, z = c;
    const int before = fegetround();
    fesetround(in.flags & ROUND_DOWN ? FE_DOWNWARD : in.flags & ROUND_UP ? FE_UPWARD : FE_TOWARDZERO);
    volatile Real result = compute<Real>((Sub)in.sub, x, y, z, false);
    fesetround(before);
    return result;
}

static bool tested(Sub sub, double a)
{
    return sub == F_TESTP_FINITE ? std::isfinite(a) : sub == F_TESTP_INFINITE ? std::isinf(a) : std::isnan(a);
}

uint64_t float32(const Instruction &in, uint64_t a_, uint64_t b_, uint64_t c_)
{
    const bool flush = in.flags & FTZ;
    float a = flushed(as_float(a_), flush), b = flushed(as_float(b_), flush), c = flushed(as_float(c_), flush), d;
    if (in.sub >= F_TESTP_FINITE && in.sub <= F_TESTP_NAN) return tested((Sub)in.sub, a);
    if (in.flags & (ROUND_DOWN | ROUND_UP | ROUND_ZERO))
        d = compute_rounded<float>(in, a, b, c);
    else
        d = compute<float>((Sub)in.sub, a, b, c, in.flags & NAN_WINS);
    if (in.flags & SATURATE) d = d > 0.0f ? std::min(d, 1.0f) : 0.0f;
    return of_float(flushed(d, flush));
}

uint64_t float64(const Instruction &in, uint64_t a_, uint64_t b_, uint64_t c_)
{
    double a = as_double(a_), b = as_double(b_), c = as_double(c_);
    if (in.sub >= F_TESTP_FINITE && in.sub <= F_TESTP_NAN) return tested((Sub)in.sub, a);
    if (in.flags & (ROUND_DOWN | ROUND_UP | ROUND_ZERO)) return of_double(compute_rounded<double>(in, a, b, c));
    return of_double(compute<double>((Sub)in.sub, a, b, c, in.flags & NAN_WINS));
}

/* --- half precision ----------------------------------------------------------------------------------------------- */

float half_value(Type t, uint64_t bits)
{
    if (t == BF16 || t == BF16X2) return as_float((bits & 0xffff) << 16);
    return __half2float(__ushort_as_half((unsigned short)bits));
}

static uint64_t half_bits(Type t, double value, bool towards_zero = false)
{
    if (t == F16 || t == F16X2) return __half_as_ushort(__double2half(value));
    if (towards_zero && !std::isnan(value)) {
        float f = (float)value;
        if (std::fabs((double)f) > std::fabs(value)) f = std::nextafter(f, 0.0f);
        return of_float(f) >> 16;
    }
    return __bfloat16_as_ushort(__double2bfloat16(value));
}

/* One or two of them; computed in double, rounded once. */
uint64_t half(const Instruction &in, uint64_t a, uint64_t b, uint64_t c)
{
    const int n = in.type == F16X2 || in.type == BF16X2 ? 2 : 1;
    uint64_t result = 0;
    for (int i = 0; i < n; i++, a >>= 16, b >>= 16, c >>= 16) {
        double x = half_value(in.type, a), y = half_value(in.type, b), z = half_value(in.type, c);
        uint64_t bits;
        if (in.sub == F_NEG)
            bits = (a ^ 0x8000) & 0xffff;
        else if (in.sub == F_ABS)
            bits = a & 0x7fff;
        else
            bits = half_bits(in.type, compute<double>((Sub)in.sub, x, y, z, in.flags & NAN_WINS));
        result |= bits << 16 * i;
    }
    return result;
}

/* --- conversions -------------------------------------------------------------------------------------------------- */

static double real_value(Type t, uint64_t a)
{
    if (t == F64) return as_double(a);
    if (t == F32) return as_float(a);
    return half_value(t, a);
}

static double to_integer(double v, uint8_t flags)
{
    if (flags & ROUND_NEAREST) return std::nearbyint(v);
    if (flags & ROUND_DOWN) return std::floor(v);
    if (flags & ROUND_UP) return std::ceil(v);
    return std::trunc(v);
}

static uint64_t integer_of(double v, Type t)
{
    if (std::isnan(v)) return t == S64 || t == U64 ? 1ull << 63 : 0;
    const unsigned bits = 8 * (unsigned)bytes_of(t);
    if (is_signed(t)) {
        double limit = std::ldexp(1.0, (int)bits - 1);
        if (v >= limit) return low_bits((1ull << (bits - 1)) - 1, bits);
        if (v < -limit) return low_bits(1ull << (bits - 1), bits);
        return low_bits((uint64_t)(int64_t)v, bits);
    }
    if (v <= 0) return 0;
    if (v >= std::ldexp(1.0, (int)bits)) return low_bits(~0ull, bits);
    return (uint64_t)v;
}

static __attribute__((noinline)) float narrowed(double v, uint8_t flags)
{
    if (!(flags & (ROUND_DOWN | ROUND_UP | ROUND_ZERO))) return (float)v;
    volatile double x = v;
    const int before = fegetround();
    fesetround(flags & ROUND_DOWN ? FE_DOWNWARD : flags & ROUND_UP ? FE_UPWARD : FE_TOWARDZERO);
    volatile float result = (float)x;
    fesetround(before);
    return result;
}

static uint64_t from_integer(const Instruction &in, uint64_t a)
{
    const unsigned bits = 8 * (unsigned)bytes_of(in.from);
    const bool negative = is_signed(in.from);
    int64_t s = sign_extended(a, bits);
    uint64_t u = low_bits(a, bits);
    switch (in.type) {
    case F64:
        return of_double(negative ? (double)s : (double)u);
    case F32:
        if (bits < 64 && (in.flags & (ROUND_DOWN | ROUND_UP | ROUND_ZERO)))
            return of_float(narrowed(negative ? (double)s : (double)u, in.flags));
        return of_float(negative ? (float)s : (float)u);
    default:
        return half_bits(in.type, negative ? (double)s : (double)u);
    }
}

uint64_t convert(const Instruction &in, uint64_t a, uint64_t b)
{
    const bool zero = in.flags & ROUND_ZERO;
    if (in.type == BF16X2 || in.type == F16X2)
        return half_bits(in.type, as_float(a), zero) << 16 | half_bits(in.type, as_float(b), zero);
    const bool from_real = in.from == F32 || in.from == F64 || in.from == F16 || in.from == BF16;
    if (!from_real) return from_integer(in, a);
    double v = real_value(in.from, a);
    if (in.from == F32 && (in.flags & FTZ)) v = flushed((float)v, true);
    if (in.type != F32 && in.type != F64 && in.type != F16 && in.type != BF16) {
        uint64_t result = integer_of(to_integer(v, in.flags), in.type);
        return is_signed(in.type) ? low_bits((uint64_t)sign_extended(result, 8 * (unsigned)bytes_of(in.type)), in.width)
                                  : result;
    }
    if (in.flags & OTHER) v = to_integer(v, in.flags);
    if (in.flags & SATURATE) v = v > 0 ? std::min(v, 1.0) : 0;
    if (in.type == F64) return of_double(v);
    if (in.type == F32) return of_float(flushed(in.flags & OTHER ? (float)v : narrowed(v, in.flags), in.flags & FTZ));
    return half_bits(in.type, v, zero);
}

uint64_t extend(const Instruction &in, uint64_t a)
{
    const unsigned from = 8 * (unsigned)bytes_of(in.from), to = 8 * (unsigned)bytes_of(in.type);
    uint64_t v = is_signed(in.from) ? (uint64_t)sign_extended(a, from) : low_bits(a, from);
    v = is_signed(in.type) ? (uint64_t)sign_extended(v, to) : low_bits(v, to);
    return low_bits(v, in.width);
}

/* --- integers ----------------------------------------------------------------------------------------------------- */

uint64_t min_max(const Instruction &in, uint64_t a, uint64_t b)
{
    const unsigned bits = 8 * (unsigned)bytes_of(in.type);
    bool a_less = is_signed(in.type) ? sign_extended(a, bits) < sign_extended(b, bits) : a < b;
    return a_less != (in.sub != 0) ? a : b;
}

uint64_t multiply_high(Type t, uint64_t a, uint64_t b)
{
    const unsigned bits = 8 * (unsigned)bytes_of(t);
    if (is_signed(t))
        return low_bits((uint64_t)(((__int128)sign_extended(a, bits) * sign_extended(b, bits)) >> bits), bits);
    return low_bits((uint64_t)(((unsigned __int128)a * b) >> bits), bits);
}

uint64_t shift(const Instruction &in, uint64_t a, uint64_t b)
{
    const unsigned bits = 8 * (unsigned)bytes_of(in.type), by = (uint32_t)b;
    if (!in.sub) return by >= bits ? 0 : low_bits(a << by, bits);
    if (is_signed(in.type)) return low_bits((uint64_t)(sign_extended(a, bits) >> std::min(by, bits - 1)), bits);
    return by >= bits ? 0 : a >> by;
}

uint64_t lop3(unsigned table, uint64_t a, uint64_t b, uint64_t c)
{
    uint32_t result = 0;
    for (unsigned i = 0; i < 8; i++) {
        if (!(table >> i & 1)) continue;
        result |= (uint32_t)((i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c));
    }
    return result;
}

uint64_t funnel_shift(const Instruction &in, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t both = b << 32 | a;
    unsigned by = (uint32_t)c;
    by = in.sub & 2 ? std::min(by, 32u) : by & 31;
    return (uint32_t)(in.sub & 1 ? both >> by : both << by >> 32);
}

uint64_t permute(uint64_t a, uint64_t b, uint64_t select)
{
    const uint64_t bytes = b << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = (unsigned)(select >> 4 * i) & 15;
        uint32_t byte = (uint32_t)(bytes >> 8 * (s & 7)) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    return result;
}

uint64_t extract_field(const Instruction &in, uint64_t a, uint64_t at, uint64_t length)
{
    const unsigned bits = 8 * (unsigned)bytes_of(in.type), msb = bits - 1;
    at &= 0xff, length &= 0xff;
    uint64_t sign = !is_signed(in.type) || length == 0 ? 0 : a >> std::min<uint64_t>(at + length - 1, msb) & 1;
    uint64_t result = 0;
    for (unsigned i = 0; i <= msb; i++) result |= (i < length && at + i <= msb ? a >> (at + i) & 1 : sign) << i;
    return result;
}

uint64_t insert_field(const Instruction &in, uint64_t from, uint64_t into, uint64_t at, uint64_t length)
{
    const unsigned bits = 8 * (unsigned)bytes_of(in.type);
    at &= 0xff, length &= 0xff;
    for (unsigned i = 0; i < length && at + i < bits; i++)
        into = (into & ~(1ull << (at + i))) | (from >> i & 1) << (at + i);
    return into;
}

uint64_t find_bit(const Instruction &in, uint64_t a)
{
    if (is_signed(in.type) && sign_extended(a, in.width) < 0) a = low_bits(~a, in.width);
    return a ? 63u - (unsigned)__builtin_clzll(a) : 0xffffffffu;
}

uint64_t reversed(uint64_t a, unsigned bits)
{
    uint64_t result = 0;
    for (unsigned i = 0; i < bits; i++) result |= (a >> i & 1) << (bits - 1 - i);
    return result;
}

uint64_t atomic_result(const Instruction &in, uint64_t old, uint64_t b, uint64_t c)
{
    const unsigned bits = 8 * in.width;
    switch (in.sub) {
    case A_ADD:
        if (in.type == F32) return of_float(as_float(old) + as_float(b));
        if (in.type == F64) return of_double(as_double(old) + as_double(b));
        return low_bits(old + b, bits);
    case A_MIN:
    case A_MAX: {
        bool less = is_signed(in.type) ? sign_extended(old, bits) < sign_extended(b, bits) : old < b;
        return less != (in.sub == A_MAX) ? old : b;
    }
    case A_AND:
        return old & b;
    case A_OR:
        return old | b;
    case A_XOR:
        return old ^ b;
    case A_EXCH:
        return b;
    case A_CAS:
        return old == b ? c : old;
    case A_INC:
        return old >= b ? 0 : old + 1;
    default:
        return old == 0 || old > b ? b : old - 1;
    }
}

} // namespace ptx
} // namespace cudaemu
#endif
