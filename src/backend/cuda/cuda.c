/* Opens the CUDA backend on one device: which one, whether it will do, and the table of operations. */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>

/* bf16 on the tensor cores, cp.async: Ampere. */
enum { CAPABILITY_MAJOR = 8 };

/* CUDA counts versions as 1000 major + 10 minor. */
enum { MAJOR = 1000, MINOR = 10 };

static const fb3_ops ops_cuda = {
    .name = "cuda",
    .host_memory = false,
    .close = fb3_close_cuda,
    .describe = fb3_describe_cuda,
    .alloc = fb3_alloc_cuda,
    .free = fb3_free_cuda,
    .upload = fb3_upload_cuda,
    .download = fb3_download_cuda,
    .fetch = fb3_fetch_cuda,
    .zero = fb3_zero_cuda,
    .sync = fb3_sync_cuda,
    .reserve = fb3_reserve_cuda,
    .scratch_bytes = fb3_scratch_bytes_cuda,
    .memory_left = fb3_memory_left_cuda,
    .alloc_host = fb3_alloc_host_cuda,
    .free_host = fb3_free_host_cuda,
    .snapshot = fb3_snapshot_cuda,
    .snapshot_ready = fb3_snapshot_ready_cuda,
    .cast_to_act = fb3_cast_to_act_cuda,
    .fixed_add = fb3_fixed_add_cuda,
    .fixed_to_float = fb3_fixed_to_float_cuda,
    .count_nonfinite = fb3_count_nonfinite_cuda,
    .library_product = fb3_library_product_cuda,
    .memory_rate = fb3_memory_rate_cuda,
    .embedding_fwd = fb3_embedding_fwd_cuda,
    .embedding_bwd = fb3_embedding_bwd_cuda,
    .layernorm_fwd = fb3_layernorm_fwd_cuda,
    .layernorm_bwd = fb3_layernorm_bwd_cuda,
    .dropout_fwd = fb3_dropout_fwd_cuda,
    .dropout_bwd_add = fb3_dropout_bwd_add_cuda,
    .linear_fwd = fb3_linear_fwd_cuda,
    .linear_gelu_fwd = fb3_linear_gelu_fwd_cuda,
    .linear_bwd_input = fb3_linear_bwd_input_cuda,
    .linear_bwd_weight = fb3_linear_bwd_weight_cuda,
    .linear_bwd_input_float = fb3_linear_bwd_input_float_cuda,
    .linear_gelu_bwd_input = fb3_linear_gelu_bwd_input_cuda,
    .attention_fwd = fb3_attention_fwd_cuda,
    .attention_bwd = fb3_attention_bwd_cuda,
    .add_layernorm_fwd = fb3_add_layernorm_fwd_cuda,
    .add_layernorm_bwd = fb3_add_layernorm_bwd_cuda,
    .mean_pool_fwd = fb3_mean_pool_fwd_cuda,
    .mean_pool_bwd = fb3_mean_pool_bwd_cuda,
    .head_fwd = fb3_head_fwd_cuda,
    .head_bwd = fb3_head_bwd_cuda,
    .loss_fwd = fb3_loss_fwd_cuda,
    .loss_bwd = fb3_loss_bwd_cuda,
    .sum_squares = fb3_sum_squares_cuda,
    .adamw = fb3_adamw_cuda,
};

fb3_status fb3_cuda_error(cudaError_t error, const char *call)
{
    return fb3_fail(FB3_FAILED, "CUDA: %s (%s) from %s", cudaGetErrorString(error), cudaGetErrorName(error), call);
}

fb3_status fb3_cublas_error(cublasStatus_t error, const char *call)
{
    return fb3_fail(FB3_FAILED, "cuBLAS: %s from %s", cublasLtGetStatusName(error), call);
}

fb3_status fb3_cudnn_error(cudnnStatus_t error, const char *call)
{
    return fb3_fail(FB3_FAILED, "cuDNN: %s from %s", cudnnGetErrorString(error), call);
}

fb3_status fb3_cuda_devices(int *count)
{
    int driver = 0, runtime = 0;
    *count = 0;
    FB3_CUDA(cudaDriverGetVersion(&driver));
    FB3_CUDA(cudaRuntimeGetVersion(&runtime));
    FB3_REQUIRE(driver > 0, FB3_INPUT, "no NVIDIA driver answers on this machine");
    FB3_REQUIRE(
        driver / MAJOR >= runtime / MAJOR, FB3_INPUT,
        "the NVIDIA driver is for CUDA %d.%d, and this build needs one for CUDA %d.0 or later; use a newer driver, or "
        "build with an older CUDA toolkit",
        driver / MAJOR, driver % MAJOR / MINOR, runtime / MAJOR);
    cudaError_t error = cudaGetDeviceCount(count);
    if (error != cudaSuccess) *count = 0; /* it may have been left as it was, or not */
    FB3_REQUIRE(error == cudaSuccess || error == cudaErrorNoDevice, FB3_INPUT, "CUDA: %s (%s)",
                cudaGetErrorString(error), cudaGetErrorName(error));
    FB3_REQUIRE(*count > 0, FB3_INPUT, "the NVIDIA driver shows no device to this process (CUDA_VISIBLE_DEVICES?)");
    return FB3_OK;
}

/* One device for each of the node's ranks. Schedulers that give every task a device of its own show it one. */
static fb3_status choose_device(fb3_cuda *cuda, const fb3_backend_options *options)
{
    int count;
    FB3_TRY(fb3_cuda_devices(&count));
    FB3_REQUIRE(count == 1 || count >= options->node_ranks, FB3_INPUT,
                "%d devices are visible to the %d ranks of this node; start one rank per device", count,
                options->node_ranks);
    cuda->device = count == 1 ? 0 : options->node_rank;
    FB3_CUDA(cudaGetDeviceProperties(&cuda->properties, cuda->device));
    FB3_REQUIRE(
        cuda->properties.major >= CAPABILITY_MAJOR, FB3_INPUT,
        "device %d, %s, has compute capability %d.%d, and this program needs %d.0 (Ampere) or later; use device: cpu",
        cuda->device, cuda->properties.name, cuda->properties.major, cuda->properties.minor, CAPABILITY_MAJOR);
    FB3_CUDA(cudaSetDevice(cuda->device));
    return FB3_OK;
}

static fb3_status check_attention(fb3_backend *be, const fb3_backend_options *options)
{
    FB3_REQUIRE(be->act == FB3_BF16 || options->attention_impl != FB3_ATTENTION_FUSED, FB3_INPUT,
                "attention_impl: fused works in bf16 on CUDA; use bf16: true, or attention_impl: reference");
    fb3_cuda_of(be)->fused = be->act == FB3_BF16 && options->attention_impl != FB3_ATTENTION_REFERENCE;
    fb3_cuda_of(be)->fused_only = options->attention_impl == FB3_ATTENTION_FUSED;
    return FB3_OK;
}

fb3_status fb3_cuda_open(fb3_backend *be, const fb3_backend_options *options)
{
    fb3_cuda *cuda = calloc(1, sizeof *cuda);
    FB3_REQUIRE(cuda, FB3_FAILED, "out of memory for the CUDA backend");
    be->state = cuda;
    be->ops = &ops_cuda;
    cuda->tf32 = options->tf32;
    FB3_TRY(check_attention(be, options));
    FB3_TRY(choose_device(cuda, options));
    FB3_CUDA(cudaStreamCreateWithFlags(&cuda->compute, cudaStreamNonBlocking));
    FB3_TRY(fb3_staging_open(be));
    FB3_TRY(fb3_snapshots_open(be));
    FB3_TRY(fb3_products_open(be));
    FB3_TRY(fb3_alloc_cuda(be, (void **)&cuda->arrivals, FB3_CUDA_ARRIVALS * sizeof *cuda->arrivals));
    return fb3_zero_cuda(be, cuda->arrivals, FB3_CUDA_ARRIVALS * sizeof *cuda->arrivals);
}

void fb3_close_cuda(fb3_backend *be)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    if (!cuda) return;
    if (cuda->compute) (void)cudaStreamSynchronize(cuda->compute);
    if (cuda->cudnn) (void)cudnnDestroy(cuda->cudnn);
    fb3_products_close(be);
    fb3_snapshots_close(be);
    fb3_staging_close(be);
    fb3_free_cuda(be, cuda->scratch);
    fb3_free_cuda(be, cuda->arrivals);
    if (cuda->compute) (void)cudaStreamDestroy(cuda->compute);
    free(cuda);
    be->state = NULL;
}

void fb3_describe_cuda(const fb3_backend *be, char *text, size_t bytes)
{
    const fb3_cuda *cuda = fb3_cuda_of(be);
    snprintf(text, bytes, "cuda:%d %.48s, sm_%d%d, %.1f GiB", cuda->device, cuda->properties.name,
             cuda->properties.major, cuda->properties.minor,
             (double)cuda->properties.totalGlobalMem / (double)(1 << 30));
}
