/* What kernels, compiled or interpreted, ask of the scheduler: barriers, operations of a warp, asynchronous copies. */
#ifndef CUDAEMU_WARP_H
#define CUDAEMU_WARP_H

#include <cuda_runtime.h>
#include <stdint.h>

/* The emulator is linked into the library whose kernels it runs; what is not CUDA's interface stays inside. */
#define CUDAEMU_INTERNAL __attribute__((visibility("hidden")))

namespace cudaemu
{

/* CUDA's built-in variables: plain memory, set at each switch, since one block runs at a time, on one thread. */
struct Builtins {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
    unsigned lane;
    void *dynamic_shared;
};
extern Builtins builtins CUDAEMU_INTERNAL;

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* __syncthreads, and its variants that count or combine a predicate. */
enum class Reduce { COUNT, AND, OR };
void block_barrier(const char *file, int line);
int block_barrier_reduce(Reduce kind, bool predicate, const char *file, int line);
/* __threadfence, for the checker. */
void fence();

/* What a lane brings to an operation of its warp. The lane that arrives last does the operation for all of them. */
struct Lane {
    const void *in;
    void *out;
    int argument;
};
struct WarpOperation {
    const char *name;
    void (*run)(Lane *lanes, unsigned arrived);
    bool whole_warp, orders_memory;
};
void warp_collective(unsigned mask, const WarpOperation &operation, Lane mine, const char *file, int line);

struct ShuffleIn {
    uint64_t value;
    int source;
};
struct MmaOperands {
    float *d;
    const uint32_t *a, *b;
};
struct MatrixRow {
    uint16_t element[8];
};
struct ReduceIn {
    int64_t value;
    char kind; /* + < > & | ^ */
};
extern const WarpOperation SYNCWARP, SHUFFLE /* ShuffleIn -> uint64_t */, BALLOT /* argument -> unsigned */,
    REDUCE /* ReduceIn -> int64_t */, MMA /* MmaOperands, in place */,
    LDMATRIX /* MatrixRow -> uint32_t[n]; argument n, negative: transposed */;

/* cp.async: the copy is done at any moment between here and the wait. */
void cp_async(void *shared, const void *global, int bytes, bool valid, const void *pc);
void cp_async_commit();
void cp_async_wait(int groups_left);

} // namespace cudaemu

#endif
