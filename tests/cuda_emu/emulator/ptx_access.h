/* A running function's memory. Internal to PTX mode. */
#ifndef CUDAEMU_PTX_ACCESS_H
#define CUDAEMU_PTX_ACCESS_H

#include "memory.h"
#include "ptx_math.h"
#include "ptx_program.h"
#include "scheduler.h"
#include "stats.h"

#include <cstring>

namespace cudaemu
{
namespace ptx
{

/* What a running function needs besides its slots. */
struct Context {
    Function &f;
    uint64_t *slots;
    char *parameters; /* result first, then parameters */
    size_t parameter_bytes;
    char *local;
};

/* Fails with the instruction's file and line. */
[[noreturn]] void stop(const Context &x, size_t at, const char *format, ...) __attribute__((format(printf, 3, 4)));
[[noreturn]] void bad_access(const Context &x, size_t at, uint64_t address, unsigned bytes, bool write,
                             const char *where);

/* The rarer instructions (ptx_operations.cpp). */
void do_atomic(const Context &x, size_t at, const Instruction &in);
void do_shuffle(const Context &x, size_t at, const Instruction &in);
void do_vote(const Context &x, size_t at, const Instruction &in);
void do_redux(const Context &x, size_t at, const Instruction &in);
void do_cp_async(const Context &x, size_t at, const Instruction &in);
void do_ldmatrix(const Context &x, size_t at, const Instruction &in);
void do_mma(const Context &x, size_t at, const Instruction &in);
void do_divide(const Context &x, size_t at, const Instruction &in);
void do_call(const Context &x, size_t at, const Instruction &in);
/* Of the current thread, by instruction. */
uint32_t *counts_of_thread(const Function &f);
void do_pack(const Context &x, const Instruction &in);
void do_unpack(const Context &x, const Instruction &in);

/* Runs a function for the current thread (ptx_run.cpp). */
void run_function(Function &f, uint64_t *slots, char *parameters, size_t bytes, char *local);

/* --- memory ------------------------------------------------------------------------------------------------------- */

struct Place {
    char *p;
    bool shared, counted;
};

static inline char *global_place(const Context &x, size_t at, uint64_t address, unsigned bytes, bool write)
{
    const Allocation *a = in_arena((void *)address) ? allocation_at((void *)address) : nullptr;
    if (__builtin_expect(!a || a->freed || address < a->low || address + bytes > a->high || (address & (bytes - 1)), 0))
        bad_access(x, at, address, bytes, write, "every live device allocation (a host pointer, or out of bounds)");
    return (char *)address;
}
static inline char *shared_place(const Context &x, size_t at, uint64_t address, unsigned bytes, bool write)
{
    address = (uint32_t)address; /* the window is addressed by 32 bits, and sums wrap there */
    if (__builtin_expect(address + bytes > running.shared_bytes || address + bytes < bytes || (address & (bytes - 1)),
                         0))
        bad_access(x, at, address, bytes, write, "the block's shared memory");
    return (char *)builtins.dynamic_shared + address;
}
static inline char *local_place(const Context &x, size_t at, uint64_t address, unsigned bytes, bool write)
{
    if (__builtin_expect(address + bytes > x.f.local_bytes || address + bytes < bytes || (address & (bytes - 1)), 0))
        bad_access(x, at, address, bytes, write, "the thread's local memory");
    return x.local + address;
}
static inline Place generic_place(const Context &x, size_t at, uint64_t address, unsigned bytes, bool write)
{
    uint64_t shared = address - (uint64_t)builtins.dynamic_shared, local = address - (uint64_t)x.local;
    if (builtins.dynamic_shared && shared < running.shared_bytes)
        return {shared_place(x, at, shared, bytes, write), true, true};
    if (local < x.f.local_bytes) return {local_place(x, at, local, bytes, write), false, false};
    return {global_place(x, at, address, bytes, write), false, true};
}

static inline void load_into(const Context &x, const Instruction &in, const char *p)
{
    uint64_t *R = x.slots;
    const unsigned width = in.width;
    if (in.count == 1) {
        uint64_t v = 0;
        switch (width) {
        case 1:
            v = *(const uint8_t *)p;
            break;
        case 2:
            v = *(const uint16_t *)p;
            break;
        case 4:
            v = *(const uint32_t *)p;
            break;
        default:
            v = *(const uint64_t *)p;
        }
        if (__builtin_expect(is_signed(in.type), 0)) v = low_bits((uint64_t)sign_extended(v, 8 * width), in.sub);
        R[in.d] = v;
        return;
    }
    const uint32_t *list = &x.f.lists[in.list];
    for (unsigned k = 0; k < in.count; k++) {
        uint64_t v = 0;
        memcpy(&v, p + k * width, width);
        if (is_signed(in.type)) v = low_bits((uint64_t)sign_extended(v, 8 * width), in.sub);
        R[list[k]] = v;
    }
}
static inline void store_from(const Context &x, const Instruction &in, char *p)
{
    const uint64_t *R = x.slots;
    if (in.count == 1) {
        switch (in.width) {
        case 1:
            *(uint8_t *)p = (uint8_t)R[in.b];
            break;
        case 2:
            *(uint16_t *)p = (uint16_t)R[in.b];
            break;
        case 4:
            *(uint32_t *)p = (uint32_t)R[in.b];
            break;
        default:
            *(uint64_t *)p = R[in.b];
        }
        return;
    }
    const uint32_t *list = &x.f.lists[in.list];
    for (unsigned k = 0; k < in.count; k++) memcpy(p + k * in.width, &R[list[k]], in.width);
}

static inline char *parameter_place(const Context &x, size_t at, uint64_t address, unsigned bytes)
{
    if (address + bytes > x.parameter_bytes) stop(x, at, "outside the parameters");
    return x.parameters + address;
}

} // namespace ptx
} // namespace cudaemu

#endif
