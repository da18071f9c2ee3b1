/* The rarer PTX instructions: atomics, operations of the warp, matrices, division; and what their failures say. */
#ifndef CUDAEMU_CHECK
#include "ptx_access.h"

#include <cstdarg>

namespace cudaemu
{
namespace ptx
{

void stop(const Context &x, size_t at, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fail("%s:%d: %s", x.f.file.c_str(), x.f.lines[at], message);
}

void bad_access(const Context &x, size_t at, uint64_t address, unsigned bytes, bool write, const char *where_)
{
    const char *what = write ? "write" : "read";
    if (address & (bytes - 1)) stop(x, at, "misaligned %u-byte %s at 0x%llx", bytes, what, (unsigned long long)address);
    const Allocation *a = in_arena((void *)address) ? allocation_at((void *)address) : nullptr;
    stop(x, at, "%u-byte %s at 0x%llx, outside %s%s", bytes, what, (unsigned long long)address, where_,
         a && a->freed ? ": it is freed" : "");
}

void do_atomic(const Context &x, size_t at, const Instruction &in)
{
    uint64_t *R = x.slots, address = R[in.a] + (uint64_t)in.immediate, old = 0;
    Place place;
    if (in.count == SHARED)
        place = {shared_place(x, at, address, in.width, true), true, true};
    else if (in.count == GLOBAL)
        place = {global_place(x, at, address, in.width, true), false, true};
    else
        place = generic_place(x, at, address, in.width, true);
    memcpy(&old, place.p, in.width);
    uint64_t result = atomic_result(in, old, R[in.b], R[in.c]);
    memcpy(place.p, &result, in.width);
    if (!(in.flags & OTHER)) R[in.d] = old;
    if (count_accesses && place.counted) {
        count_access(place.p, in.width, false, place.shared);
        count_access(place.p, in.width, true, place.shared);
    }
}

void do_shuffle(const Context &x, size_t at, const Instruction &in)
{
    uint64_t *R = x.slots;
    const uint32_t *list = &x.f.lists[in.list];
    const int lane = (int)builtins.lane, b = (int)(R[in.b] & 31), clamp = (int)(R[in.c] & 31);
    const int segment = (int)(R[in.c] >> 8 & 31), most = (lane & segment) | (clamp & ~segment), least = lane & segment;
    int source;
    bool inside;
    switch (in.sub) {
    case 0:
        source = lane - b, inside = source >= most;
        break;
    case 1:
        source = lane + b, inside = source <= most;
        break;
    case 2:
        source = lane ^ b, inside = source <= most;
        break;
    default:
        source = least | (b & ~segment), inside = source <= most;
    }
    ShuffleIn out_of_me = {R[in.a] & 0xffffffffu, inside ? source : lane};
    uint64_t result = 0;
    warp_collective((uint32_t)R[list[0]], SHUFFLE, {&out_of_me, &result, 0}, x.f.file.c_str(), x.f.lines[at]);
    R[in.d] = (uint32_t)result;
    R[list[1]] = inside;
}

void do_vote(const Context &x, size_t at, const Instruction &in)
{
    uint64_t *R = x.slots;
    unsigned result = 0;
    bool p = (R[in.a] != 0) != ((in.flags & OTHER) != 0);
    warp_collective((uint32_t)R[in.b], BALLOT, {nullptr, &result, in.sub == 2 ? !p : p}, x.f.file.c_str(),
                    x.f.lines[at]);
    R[in.d] = in.sub == 0 ? result : in.sub == 1 ? result != 0 : result == 0;
}

void do_redux(const Context &x, size_t at, const Instruction &in)
{
    uint64_t *R = x.slots;
    ReduceIn mine = {is_signed(in.type) ? (int64_t)(int32_t)R[in.a] : (int64_t)(uint32_t)R[in.a], (char)in.sub};
    int64_t result = 0;
    warp_collective((uint32_t)R[in.b], REDUCE, {&mine, &result, 0}, x.f.file.c_str(), x.f.lines[at]);
    R[in.d] = (uint32_t)result;
}

void do_cp_async(const Context &x, size_t at, const Instruction &in)
{
    const uint64_t *R = x.slots;
    const unsigned bytes = in.width, given = (uint32_t)R[in.c];
    uint64_t from = R[in.b] + R[x.f.lists[in.list]];
    char *to = shared_place(x, at, R[in.a] + (uint64_t)in.immediate, bytes, true);
    if (given != 0 && given != bytes) stop(x, at, "cp.async of a part is not emulated");
    if (given) global_place(x, at, from, bytes, false);
    if (count_accesses) {
        if (given) count_access((void *)from, bytes, false, false);
        count_access(to, bytes, true, true);
    }
    cp_async(to, (void *)from, (int)bytes, given != 0, nullptr);
}

void do_ldmatrix(const Context &x, size_t at, const Instruction &in)
{
    MatrixRow row = {};
    uint32_t result[4];
    /* the addresses of rows come from the first 8, 16 or all lanes */
    if (builtins.lane < 8u * in.count) {
        const char *p = shared_place(x, at, x.slots[in.a] + (uint64_t)in.immediate, 16, false);
        memcpy(row.element, p, sizeof row.element);
        if (count_accesses) count_access(p, 16, false, true);
    }
    warp_collective(0xffffffffu, LDMATRIX, {&row, result, in.sub ? -in.count : in.count}, x.f.file.c_str(),
                    x.f.lines[at]);
    for (unsigned k = 0; k < in.count; k++) x.slots[x.f.lists[in.list + k]] = result[k];
}

/* list: a[4], b[2], c[4], d[4] */
void do_mma(const Context &x, size_t at, const Instruction &in)
{
    uint64_t *R = x.slots;
    const uint32_t *list = &x.f.lists[in.list];
    uint32_t a[4], b[2];
    float d[4];
    for (int k = 0; k < 4; k++) a[k] = (uint32_t)R[list[k]];
    for (int k = 0; k < 2; k++) b[k] = (uint32_t)R[list[4 + k]];
    for (int k = 0; k < 4; k++) d[k] = as_float(R[list[6 + k]]);
    MmaOperands operands = {d, a, b};
    warp_collective(0xffffffffu, MMA, {&operands, nullptr, 0}, x.f.file.c_str(), x.f.lines[at]);
    for (int k = 0; k < 4; k++) R[list[10 + k]] = of_float(d[k]);
}

void do_pack(const Context &x, const Instruction &in)
{
    uint64_t *R = x.slots, v = 0;
    const unsigned bits = in.width / in.count;
    for (unsigned k = 0; k < in.count; k++) v |= low_bits(R[x.f.lists[in.list + k]], bits) << bits * k;
    R[in.d] = v;
}
void do_unpack(const Context &x, const Instruction &in)
{
    const uint64_t v = x.slots[in.a];
    const unsigned bits = in.width / in.count;
    for (unsigned k = 0; k < in.count; k++) x.slots[x.f.lists[in.list + k]] = low_bits(v >> bits * k, bits);
}

void do_divide(const Context &x, size_t at, const Instruction &in)
{
    uint64_t *R = x.slots, a = R[in.a], b = R[in.b];
    const unsigned bits = in.width;
    if (b == 0) stop(x, at, "integer division by zero");
    if (is_signed(in.type)) {
        int64_t p = sign_extended(a, bits), q = sign_extended(b, bits);
        if (q == -1)
            a = in.sub ? 0 : (uint64_t)0 - a;
        else
            a = (uint64_t)(in.sub ? p % q : p / q);
    } else {
        a = in.sub ? a % b : a / b;
    }
    R[in.d] = low_bits(a, bits);
}

} // namespace ptx
} // namespace cudaemu
#endif
