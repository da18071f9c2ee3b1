/* The kernel language on a CPU: the interface of src/backend/cuda/nvcc/kernel.h, so that g++ and clang++ compile the
 * project's .cu files as C++ (-x c++, C++17) and run them on the emulator. README of the emulator: options.h. */
#ifndef FB3_CUDA_KERNEL_H
#define FB3_CUDA_KERNEL_H

#include "builtins.h"

#include <cfloat>
#include <memory>
#include <string>
#include <tuple>

/* --- launches ----------------------------------------------------------------------------------------------------- */

namespace cudaemu
{

/* One kernel launch. The arguments are converted to the parameters' types and copied at the call, as CUDA does. */
struct Launch {
    const char *text;   /* of the source, for messages */
    const void *kernel; /* the host function */
    dim3 grid, block;
    size_t dynamic_shared;
    std::shared_ptr<void> call; /* the arguments, and */
    size_t call_bytes;
    void (*enter)(void *call); /* what calls the kernel with them */
    std::string parameters;    /* the arguments as PTX sees them: one block of bytes */
};
cudaError_t launch(Launch launch, cudaStream_t stream);

template <class... Parameters> struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::decay_t<Parameters>...> arguments;
};
template <class... Parameters> void enter_kernel(void *call_)
{
    auto *call = static_cast<Call<Parameters...> *>(call_);
    std::apply([call](auto &...arguments) { call->kernel(arguments...); }, call->arguments);
}
template <class T> void pack_parameter(std::string &block, const T &value)
{
    while (block.size() % alignof(T)) block.push_back(0);
    block.append(reinterpret_cast<const char *>(&value), sizeof value);
}
template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(const char *text, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_shared,
                          cudaStream_t stream, Arguments... arguments)
{
    static_assert(sizeof...(Parameters) == sizeof...(Arguments), "wrong number of kernel arguments");
    typedef Call<Parameters...> This;
    auto call = std::make_shared<This>(
        This{kernel, std::tuple<std::decay_t<Parameters>...>(static_cast<Parameters>(arguments)...)});
    Launch l{text,           reinterpret_cast<const void *>(kernel),
             grid,           block,
             dynamic_shared, call,
             sizeof(This),   enter_kernel<Parameters...>,
             std::string()};
    std::apply([&l](auto &...values) { (pack_parameter(l.parameters, values), ...); }, call->arguments);
    (void)launch(std::move(l), stream);
    return cudaGetLastError(); /* as after <<< >>> */
}

} // namespace cudaemu

#define FB3_LAUNCH(kernel, grid, block, shared, stream, ...)                                                           \
    ::cudaemu::launch_kernel(#kernel, kernel, dim3(grid), dim3(block), shared, stream, __VA_ARGS__)

#define FB3_DYNAMIC_SHARED(T, name) T *name = reinterpret_cast<T *>(::cudaemu::builtins.dynamic_shared)

/* --- the PTX instructions of nvcc/kernel.h ------------------------------------------------------------------------ */

CUDAEMU_UNCHECKED inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], CUDAEMU_HERE)
{
    cudaemu::MmaOperands operands{d, a, b};
    cudaemu::warp_collective(0xffffffffu, cudaemu::MMA, {&operands, nullptr, 0}, file, line);
}

typedef uintptr_t shared_address;
inline shared_address shared_address_of(const void *p)
{
    return (uintptr_t)p;
}

template <bool TRANSPOSED> inline void ldmatrix_x4(uint32_t (&r)[4], shared_address row, CUDAEMU_HERE)
{
    cudaemu::MatrixRow in;
    if (row & 15)
        cudaemu::fail("%s:%d: ldmatrix: row address %p is not 16-byte aligned", file, line, (const void *)row);
    for (int i = 0; i < 8; i++) in.element[i] = reinterpret_cast<const uint16_t *>(row)[i];
    cudaemu::warp_collective(0xffffffffu, cudaemu::LDMATRIX, {&in, r, TRANSPOSED ? -4 : 4}, file, line);
}

CUDAEMU_UNCHECKED inline void cp_async_16(shared_address to, const void *from)
{
    cudaemu::cp_async(reinterpret_cast<void *>(to), from, 16, true, __builtin_return_address(0));
}
inline void cp_async_commit(void)
{
    cudaemu::cp_async_commit();
}
template <int N> inline void cp_async_wait(void)
{
    cudaemu::cp_async_wait(N);
}

inline float exp2_approx(float x)
{
    float y = std::exp2(x);
    return std::fabs(y) < FLT_MIN ? 0.0f : y;
}

#endif
