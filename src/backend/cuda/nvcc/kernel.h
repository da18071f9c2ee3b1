/* The kernel language for nvcc: CUDA's own headers, one form of launch, and the few PTX instructions that CUDA C++ has
 * no name for. tests/cuda_emu/emulator/kernel.h is the same interface on a CPU; the include path chooses. A .cu file
 * includes <kernel.h> before anything else, launches by FB3_LAUNCH, names its dynamic shared memory by
 * FB3_DYNAMIC_SHARED and writes no asm of its own: then it runs on both.
 *
 * Compute capability 8.0 and later. */
#ifndef FB3_CUDA_KERNEL_H
#define FB3_CUDA_KERNEL_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

/* FB3_LAUNCH((kernel<float, 4>), grid, block, dynamic shared bytes, stream, arguments...): the launch's cudaError_t. */
#define FB3_LAUNCH(kernel, grid, block, shared, stream, ...)                                                           \
    fb3_launch(kernel, dim3(grid), dim3(block), shared, stream, __VA_ARGS__)

/* T *name: the block's dynamic shared memory, 16-byte aligned. */
#define FB3_DYNAMIC_SHARED(T, name)                                                                                    \
    extern __shared__ __align__(16) unsigned char fb3_dynamic_shared[];                                                \
    T *name = reinterpret_cast<T *>(fb3_dynamic_shared)

template <class... Parameters, class... Arguments>
static inline cudaError_t fb3_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                                     cudaStream_t stream, Arguments... arguments)
{
    kernel<<<grid, block, shared, stream>>>(static_cast<Parameters>(arguments)...);
    return cudaGetLastError();
}

/* d [16,8] += a [16,16] b [16,8], in fp32, of a warp. Lane l, g = l / 4, t = l % 4 (PTX ISA, "Matrix fragments for
 * mma.m16n8k16"): a[0] = A(g, 2t..2t+1), a[1] = A(g+8, 2t..), a[2] = A(g, 2t+8..), a[3] = A(g+8, 2t+8..);
 * b[0] = B(2t..2t+1, g), b[1] = B(2t+8.., g); d[0..1] = D(g, 2t..2t+1), d[2..3] = D(g+8, 2t..2t+1). */
static __device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Where something lies in shared memory, in bytes, to reckon with. */
typedef uint32_t shared_address;
static __device__ __forceinline__ shared_address shared_address_of(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Four 8x8 matrices of bf16 from shared memory: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes,
 * 16-byte aligned), and gets from matrix k in r[k] the elements (l / 4, 2 (l % 4) ..+1), or of its transpose. */
template <bool TRANSPOSED> static __device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], shared_address row)
{
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(row)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(row)
                     : "memory");
}

/* 16 bytes from global to shared memory, both 16-byte aligned, behind the thread's back. They are there after
 * cp_async_wait, for this thread; for the block after __syncthreads, too. */
static __device__ __forceinline__ void cp_async_16(shared_address to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0],[%1],16;" ::"r"(to), "l"(from) : "memory");
}
static __device__ __forceinline__ void cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* All but the last N committed groups of this thread have landed. */
template <int N> static __device__ __forceinline__ void cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* 2^x by the special function unit: 2 ulp; results below the normal numbers are 0. */
static __device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
