/* The operation table of one instruction set. */
#include "ops.h"

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t CPU(scratch_bytes)(const fb3_backend *be, const fb3_limits *limits)
{
    (void)be;
    int D = limits->H > 0 ? limits->C / limits->H : 0;
    size_t floats = CPU(attention_workspace)(limits->max_len, limits->R, limits->C, D, limits->B);
    floats = most(floats, CPU(norm_workspace)(limits->T > limits->R ? limits->T : limits->R, limits->C));
    floats = most(floats, CPU(embedding_workspace)(limits->T, limits->C));
    return floats * sizeof(float);
}

fb3_status CPU(reserve)(fb3_backend *be, const fb3_limits *limits)
{
    float *memory;
    return fb3_cpu_workspace(be, &memory, CPU(scratch_bytes)(be, limits) / sizeof(float));
}

const fb3_ops CPU(ops) = {
    .name = "cpu",
    .host_memory = true,
    .close = fb3_close_cpu,
    .describe = fb3_describe_cpu,
    .alloc = fb3_alloc_cpu,
    .free = fb3_free_cpu,
    .upload = fb3_upload_cpu,
    .download = fb3_download_cpu,
    .zero = fb3_zero_cpu,
    .fetch = fb3_download_cpu, /* nothing is ever queued */
    .sync = fb3_sync_cpu,
    .reserve = CPU(reserve),
    .scratch_bytes = CPU(scratch_bytes),
    .memory_left = fb3_memory_left_cpu,
    .alloc_host = fb3_alloc_cpu,
    .free_host = fb3_free_cpu,
    .snapshot = fb3_download_cpu, /* nothing is ever queued */
    .snapshot_ready = fb3_snapshot_ready_cpu,
    .cast_to_act = CPU(cast_to_act),
    .fixed_add = CPU(fixed_add),
    .fixed_to_float = CPU(fixed_to_float),
    .count_nonfinite = CPU(count_nonfinite),
    .library_product = fb3_library_product_cpu,
    .memory_rate = fb3_memory_rate_cpu,
    .embedding_fwd = CPU(embedding_fwd),
    .embedding_bwd = CPU(embedding_bwd),
    .layernorm_fwd = CPU(layernorm_fwd),
    .layernorm_bwd = CPU(layernorm_bwd),
    .dropout_fwd = CPU(dropout_fwd),
    .dropout_bwd_add = CPU(dropout_bwd_add),
    .linear_fwd = CPU(linear_fwd),
    .linear_gelu_fwd = CPU(linear_gelu_fwd),
    .linear_bwd_input = CPU(linear_bwd_input),
    .linear_bwd_weight = CPU(linear_bwd_weight),
    .linear_bwd_input_float = CPU(linear_bwd_input_float),
    .linear_gelu_bwd_input = CPU(linear_gelu_bwd_input),
    .attention_fwd = CPU(attention_fwd),
    .attention_bwd = CPU(attention_bwd),
    .add_layernorm_fwd = CPU(add_layernorm_fwd),
    .add_layernorm_bwd = CPU(add_layernorm_bwd),
    .mean_pool_fwd = CPU(mean_pool_fwd),
    .mean_pool_bwd = CPU(mean_pool_bwd),
    .head_fwd = CPU(head_fwd),
    .head_bwd = CPU(head_bwd),
    .loss_fwd = CPU(loss_fwd),
    .loss_bwd = CPU(loss_bwd),
    .sum_squares = CPU(sum_squares),
    .adamw = CPU(adamw),
};
