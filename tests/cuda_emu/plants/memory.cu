/* Plants: addresses, initialisation, launches. */
#include "plants.h"

__global__ void shifted_copy(const float *x, float *out, int from, int to)
{
    out[(int)threadIdx.x + to] = x[(int)threadIdx.x + from];
}
static int copy_numbers(int from, int to)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(shifted_copy, 1, N, 0, 0, x, out, from, to));
    EXPECT(out, N, i);
    return 0;
}
static int store_beyond_the_end(int bug)
{
    return copy_numbers(0, bug ? 1 : 0);
}
static int negative_index(int bug)
{
    device_zeros(N); /* what lies before */
    return copy_numbers(bug ? -1 : 0, 0);
}

__global__ void shared_pairs(const float *x, float *out, int bug)
{
    __shared__ float s[N];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x] + s[threadIdx.x + (bug ? 1 : 0)];
}
static int shared_array_overrun(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(shared_pairs, 1, N, 0, 0, x, out, bug));
    EXPECT(out, N, 2 * i);
    return 0;
}

__global__ void dynamic_copy(const float *x, float *out)
{
    FB3_DYNAMIC_SHARED(float, s);
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[N - 1 - threadIdx.x];
}
static int too_little_dynamic_shared(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(dynamic_copy, 1, N, (N - (bug ? 1 : 0)) * sizeof(float), 0, x, out));
    EXPECT(out, N, N - 1 - i);
    return 0;
}
static int too_much_dynamic_shared(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(dynamic_copy, 1, N, bug ? 48 * 1024 + 4 : 48 * 1024, 0, x, out));
    EXPECT(out, N, N - 1 - i);
    return 0;
}

__global__ void __launch_bounds__(128) bounded(float *out)
{
    out[threadIdx.x] = 1.0f;
}
static int more_threads_than_launch_bounds(int bug)
{
    float *out = device_zeros(N);
    TRY(FB3_LAUNCH(bounded, 1, bug ? 160 : 128, 0, 0, out));
    EXPECT(out, 128, 1);
    return 0;
}
static int too_many_threads(int bug)
{
    float *out = device_zeros(2048);
    TRY(FB3_LAUNCH(shifted_copy, 1, bug ? 1025 : 1024, 0, 0, device_numbers(2048), out, 0, 0));
    EXPECT(out, 1024, i);
    return 0;
}

__global__ void histogram(const float *x, float *out, int step)
{
    int count[8];
    for (int i = 0; i < 8; i++) count[i] = 0;
    for (int i = 0; i < 8; i++) count[(int)x[i] * step] += 1;
    for (int i = 0; i < 8; i++) out[i] = (float)count[i];
}
static int local_array_overrun(int bug)
{
    float *x = device_numbers(8), *out = device_zeros(8);
    TRY(FB3_LAUNCH(histogram, 1, 1, 0, 0, x, out, bug ? 2 : 1));
    EXPECT(out, 8, 1);
    return 0;
}

__global__ void vector_copy(const float *x, float *out)
{
    reinterpret_cast<float4 *>(out)[threadIdx.x] = reinterpret_cast<const float4 *>(x)[threadIdx.x];
}
static int misaligned_vector(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(vector_copy, 1, N / 4 - 1, 0, 0, x + (bug ? 1 : 0), out));
    EXPECT(out, N - 4, i + (bug ? 1 : 0)); /* right on a CPU; an error on a GPU */
    return 0;
}

static int use_after_free(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    if (bug) TRY(cudaFree(x));
    TRY(FB3_LAUNCH(shifted_copy, 1, N, 0, 0, x, out, 0, 0));
    if (!bug) TRY(cudaFree(x));
    EXPECT(out, N, bug ? 0 : i); /* freed memory may well hold something plausible */
    return 0;
}
static int double_free(int bug)
{
    float *x = device_numbers(N);
    TRY(cudaFree(x));
    if (bug) TRY(cudaFree(x));
    return 0;
}
static int host_pointer_in_a_kernel(int bug)
{
    static float host[N];
    for (int i = 0; i < N; i++) host[i] = (float)i;
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(shifted_copy, 1, N, 0, 0, bug ? host : x, out, 0, 0));
    EXPECT(out, N, i);
    return 0;
}
static int device_pointer_on_the_host(int bug)
{
    float *x = device_numbers(N);
    float value = bug ? *(volatile float *)(x + 3) : device_get(x, 3);
    return value == 3.0f ? 0 : wrong("x[3]", value, 3.0);
}
static int copy_beyond_the_end(int bug)
{
    float *x = device_numbers(N), *y = device_zeros(N);
    TRY(cudaMemcpy(y, x, (N + (bug ? 1 : 0)) * sizeof *x, cudaMemcpyDeviceToDevice));
    EXPECT(y, N, i);
    return 0;
}
static int wrong_copy_direction(int bug)
{
    float host[N] = {0}, *x = device_numbers(N);
    TRY(cudaMemcpy(host, x, sizeof host, bug ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost));
    return host[5] == 5.0f ? 0 : wrong("host[5]", host[5], 5.0);
}

__global__ void positive_part(const float *x, float *out)
{
    out[threadIdx.x] = x[threadIdx.x] > 0.0f ? 1.0f : 0.0f; /* hides a NaN */
}
static int uninitialised_global(int bug)
{
    float *x = NULL, *out = device_zeros(N);
    TRY(cudaMalloc((void **)&x, N * sizeof *x));
    if (!bug) TRY(cudaMemset(x, 0, N * sizeof *x));
    TRY(FB3_LAUNCH(positive_part, 1, N, 0, 0, x, out));
    EXPECT(out, N, 0);
    return 0;
}
__global__ void partly_filled(const float *x, float *out, int bug)
{
    __shared__ float s[N];
    if (!bug || threadIdx.x < N / 2) s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[N - 1 - threadIdx.x] > -1.0f || bug ? 1.0f : 0.0f;
    if (s[N - 1 - threadIdx.x] > 1e30f) out[threadIdx.x] = 2.0f;
}
static int uninitialised_shared(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(partly_filled, 1, N, 0, 0, x, out, bug));
    EXPECT(out, N, 1);
    return 0;
}

__global__ void remainders(float *out, int divisor)
{
    out[threadIdx.x] = (float)((int)threadIdx.x % divisor);
}
static int division_by_zero(int bug)
{
    float *out = device_zeros(N);
    TRY(FB3_LAUNCH(remainders, 1, N, 0, 0, out, bug ? 0 : 7));
    EXPECT(out, N, i % 7);
    return 0;
}

/* Wrong PTX of this kernel lies beside this file: the source shows nothing. */
extern "C" __global__ void hand_written(const float *x, float *out)
{
    out[threadIdx.x] = x[threadIdx.x] - 1.0f;
}
static int hand_written_ptx(int bug)
{
    (void)bug;
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(hand_written, 1, N, 0, 0, x, out));
    EXPECT(out, N, i - 1);
    return 0;
}

const plant MEMORY_PLANTS[] = {
    {"store_beyond_the_end", store_beyond_the_end},
    {"negative_index", negative_index},
    {"shared_array_overrun", shared_array_overrun},
    {"too_little_dynamic_shared", too_little_dynamic_shared},
    {"too_much_dynamic_shared", too_much_dynamic_shared},
    {"more_threads_than_launch_bounds", more_threads_than_launch_bounds},
    {"too_many_threads", too_many_threads},
    {"local_array_overrun", local_array_overrun},
    {"misaligned_vector", misaligned_vector},
    {"use_after_free", use_after_free},
    {"double_free", double_free},
    {"host_pointer_in_a_kernel", host_pointer_in_a_kernel},
    {"device_pointer_on_the_host", device_pointer_on_the_host},
    {"copy_beyond_the_end", copy_beyond_the_end},
    {"wrong_copy_direction", wrong_copy_direction},
    {"uninitialised_global", uninitialised_global},
    {"uninitialised_shared", uninitialised_shared},
    {"division_by_zero", division_by_zero},
    {"unwritten_register", hand_written_ptx},
    {"swapped_operands", hand_written_ptx},
    {"unknown_instruction", hand_written_ptx},
    {NULL, NULL},
};
