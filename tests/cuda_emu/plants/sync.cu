/* Plants: barriers, warps, races, asynchronous copies. */
#include "plants.h"

__global__ void reverse(const float *x, float *out, int bug)
{
    __shared__ float s[N];
    s[threadIdx.x] = x[threadIdx.x];
    if (!bug) __syncthreads();
    out[threadIdx.x] = s[N - 1 - threadIdx.x];
}
static int missing_syncthreads(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(reverse, 1, N, 0, 0, x, out, bug));
    EXPECT(out, N, N - 1 - i);
    return 0;
}

__global__ void tiles(const float *x, float *out, int bug)
{
    __shared__ float s[N];
    float sum = 0.0f;
    for (int tile = 0; tile < 4; tile++) {
        s[threadIdx.x] = x[tile * N + threadIdx.x];
        __syncthreads();
        sum += s[(threadIdx.x + 1) % N];
        if (!bug) __syncthreads();
    }
    out[threadIdx.x] = sum;
}
static int tile_overwritten_too_early(int bug)
{
    float *x = device_numbers(4 * N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(tiles, 1, N, 0, 0, x, out, bug));
    EXPECT(out, N, 6 * N + 4 * ((i + 1) % N));
    return 0;
}

__global__ void swap_neighbours(const float *x, float *out, int bug)
{
    __shared__ float s[N];
    s[threadIdx.x] = x[threadIdx.x];
    if (!bug) __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 1];
}
static int missing_syncwarp(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(swap_neighbours, 1, N, 0, 0, x, out, bug));
    EXPECT(out, N, i ^ 1);
    return 0;
}

__global__ void two_barriers(float *out, int bug)
{
    if (!bug || threadIdx.x < N / 2)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}
static int divergent_barrier(int bug)
{
    float *out = device_zeros(N);
    TRY(FB3_LAUNCH(two_barriers, 1, N, 0, 0, out, bug));
    EXPECT(out, N, 1);
    return 0;
}

__global__ void warp_total(const float *x, float *out, int bug)
{
    float v = x[threadIdx.x];
    if (!bug || threadIdx.x < 16)
        for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(0xffffffffu, v, lanes);
    if (threadIdx.x < 16) out[threadIdx.x] = v;
}
static int shuffle_in_a_branch(int bug)
{
    float *x = device_numbers(32), *out = device_zeros(32);
    TRY(FB3_LAUNCH(warp_total, 1, 32, 0, 0, x, out, bug));
    EXPECT(out, 16, 31 * 32 / 2);
    return 0;
}

__global__ void rotate_half(const float *x, float *out, int bug)
{
    if (threadIdx.x >= 16) return;
    int source = bug ? threadIdx.x + 1 : (threadIdx.x + 1) % 16;
    out[threadIdx.x] = __shfl_sync(0x0000ffffu, x[threadIdx.x], source);
}
static int shuffle_from_outside_the_mask(int bug)
{
    float *x = device_numbers(32), *out = device_zeros(16);
    TRY(FB3_LAUNCH(rotate_half, 1, 32, 0, 0, x, out, bug));
    EXPECT(out, 16, (i + 1) % 16);
    return 0;
}

__global__ void count_positive(const float *x, float *out, int bug)
{
    unsigned votes = __ballot_sync(bug ? 0x0000ffffu : 0xffffffffu, x[threadIdx.x] > 0.0f);
    if (threadIdx.x == 0) out[0] = (float)__popc(votes);
}
static int caller_not_in_its_mask(int bug)
{
    float *x = device_numbers(32), *out = device_zeros(1);
    TRY(FB3_LAUNCH(count_positive, 1, 32, 0, 0, x, out, bug));
    EXPECT(out, 1, 31);
    return 0;
}

__global__ void vote_or_wait(float *out, int bug)
{
    unsigned votes = 0;
    if (bug && threadIdx.x < 16)
        __syncwarp();
    else
        votes = __ballot_sync(0xffffffffu, 1);
    if (threadIdx.x == 31) out[0] = (float)__popc(votes);
}
static int different_warp_functions(int bug)
{
    float *out = device_zeros(1);
    TRY(FB3_LAUNCH(vote_or_wait, 1, 32, 0, 0, out, bug));
    EXPECT(out, 1, 32);
    return 0;
}

__global__ void lost_lane(float *out, int bug)
{
    if (bug && threadIdx.x == 0) __syncwarp();
    __syncthreads();
    out[threadIdx.x] = 1.0f;
}
static int lanes_wait_for_each_other(int bug)
{
    float *out = device_zeros(32);
    TRY(FB3_LAUNCH(lost_lane, 1, 32, 0, 0, out, bug));
    EXPECT(out, 32, 1);
    return 0;
}

/* --- races -------------------------------------------------------------------------------------------------------- */

__global__ void add_up(float *sum, int bug)
{
    if (threadIdx.x != 0) return;
    if (bug)
        *sum += 1.0f;
    else
        atomicAdd(sum, 1.0f);
}
static int plain_sum_between_blocks(int bug)
{
    float *sum = device_zeros(1);
    TRY(FB3_LAUNCH(add_up, 8, 32, 0, 0, sum, bug));
    EXPECT(sum, 1, 8);
    return 0;
}

__global__ void elect(float *out, int bug)
{
    __shared__ int chosen;
    if (bug ? threadIdx.x % 32 == 7 : threadIdx.x == 7)
        chosen = (int)threadIdx.x % 32; /* the same value: still a race */
    __syncthreads();
    if (threadIdx.x == 0) out[0] = (float)chosen;
}
static int two_writers(int bug)
{
    float *out = device_zeros(1);
    TRY(FB3_LAUNCH(elect, 1, N, 0, 0, out, bug));
    EXPECT(out, 1, 7);
    return 0;
}

enum { NO_BUG, NO_RELEASE, NO_ACQUIRE, READ_TOO_EARLY };

/* out = the sum of x [blocks * N], by the block that arrives last */
__global__ void last_block_sum(const float *x, float *partial, unsigned *counter, float *out, int bug)
{
    __shared__ float s[N];
    __shared__ bool last;
    float early = 0.0f;
    s[threadIdx.x] = x[blockIdx.x * N + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int i = 0; i < N; i++) sum += s[i];
        partial[blockIdx.x] = sum;
    }
    if (bug != NO_RELEASE) __threadfence();
    __syncthreads();
    if (bug == READ_TOO_EARLY && threadIdx.x == 0)
        for (unsigned b = 0; b < gridDim.x; b++) early += partial[b];
    if (threadIdx.x == 0) {
        last = atomicAdd(counter, 1u) == gridDim.x - 1;
        if (last) *counter = 0;
        if (bug != NO_ACQUIRE) __threadfence();
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    float total = 0.0f;
    for (unsigned b = 0; b < gridDim.x; b++) total += partial[b];
    out[0] = bug == READ_TOO_EARLY ? early : total;
}
static int last_block(int bug)
{
    enum { BLOCKS = 6 };
    float *x = device_numbers(BLOCKS * N), *partial = device_zeros(BLOCKS), *out = device_zeros(1);
    unsigned *counter = (unsigned *)device_zeros(1);
    for (int again = 0; again < 2; again++) {
        TRY(FB3_LAUNCH(last_block_sum, BLOCKS, N, 0, 0, x, partial, counter, out, bug));
        EXPECT(out, 1, BLOCKS * N * (BLOCKS * N - 1) / 2);
    }
    return 0;
}
static int last_block_without_fence(int bug)
{
    return last_block(bug ? NO_RELEASE : NO_BUG);
}
static int last_block_without_second_fence(int bug)
{
    return last_block(bug ? NO_ACQUIRE : NO_BUG);
}
static int last_block_reads_before_atomic(int bug)
{
    return last_block(bug ? READ_TOO_EARLY : NO_BUG);
}

/* --- asynchronous copies, matrices -------------------------------------------------------------------------------- */

enum { NO_WAIT = 1, WEAK_WAIT, NEVER_WAITED };

__global__ void copy_through_shared(const float *x, float *out, int bug)
{
    __shared__ __align__(16) float s[2][4 * 32];
    int t = threadIdx.x;
    for (int k = 0; k < 2; k++) {
        cp_async_16(shared_address_of(&s[k][4 * t]), x + k * 128 + 4 * t);
        cp_async_commit();
    }
    if (bug == WEAK_WAIT) cp_async_wait<1>();
    if (bug == 0) cp_async_wait<0>();
    __syncthreads();
    if (bug != NEVER_WAITED)
        for (int k = 0; k < 8; k++) out[k * 32 + t] = s[k / 4][k % 4 * 32 + t];
    if (bug == NO_WAIT || bug == WEAK_WAIT) cp_async_wait<0>();
}
static int copy_twice(int bug)
{
    float *x = device_numbers(N), *out = device_zeros(N);
    TRY(FB3_LAUNCH(copy_through_shared, 1, 32, 0, 0, x, out, bug));
    EXPECT(out, N, i);
    return 0;
}
static int missing_cp_async_wait(int bug)
{
    return copy_twice(bug ? NO_WAIT : 0);
}
static int weak_cp_async_wait(int bug)
{
    return copy_twice(bug ? WEAK_WAIT : 0);
}
static int cp_async_never_waited_for(int bug)
{
    return copy_twice(bug ? NEVER_WAITED : 0);
}

enum { SWAPPED = 1, UNALIGNED };

/* out [16,8] = a [16,16] b [16,8], all of small integers; a is read by ldmatrix, b by hand */
__global__ void product(const float *a, const float *b, float *out, int bug)
{
    __shared__ __align__(16) __nv_bfloat16 s[16][24];
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += blockDim.x) s[i / 16][i % 16] = __float2bfloat16(a[i]);
    __syncthreads();
    uint32_t ra[4], rb[2];
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    ldmatrix_x4<false>(ra, shared_address_of(&s[lane % 16][lane / 16 * 8 + (bug == UNALIGNED ? 1 : 0)]));
    for (int k = 0; k < 2; k++) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(b[(2 * t + 8 * k) * 8 + g], b[(2 * t + 8 * k + 1) * 8 + g]);
        memcpy(&rb[k], &pair, sizeof pair);
    }
    if (bug == SWAPPED) {
        uint32_t other = ra[1];
        ra[1] = ra[2];
        ra[2] = other;
    }
    mma_m16n8k16(d, ra, rb);
    for (int i = 0; i < 4; i++) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}
static int multiply(int threads, int bug)
{
    float a[256], b[128], *da = NULL, *db = NULL, *out = device_zeros(128);
    for (int i = 0; i < 256; i++) a[i] = (float)(i * 7 % 11 - 5);
    for (int i = 0; i < 128; i++) b[i] = (float)(i * 5 % 13 - 6);
    TRY(cudaMalloc((void **)&da, sizeof a));
    TRY(cudaMalloc((void **)&db, sizeof b));
    TRY(cudaMemcpy(da, a, sizeof a, cudaMemcpyHostToDevice));
    TRY(cudaMemcpy(db, b, sizeof b, cudaMemcpyHostToDevice));
    TRY(FB3_LAUNCH(product, 1, threads, 0, 0, da, db, out, bug));
    for (int i = 0; i < 128; i++) {
        float sum = 0.0f, got = device_get(out, i);
        for (int k = 0; k < 16; k++) sum += a[i / 8 * 16 + k] * b[k * 8 + i % 8];
        if (got != sum) return wrong("product", got, sum);
    }
    return 0;
}
static int wrong_mma_layout(int bug)
{
    return multiply(32, bug ? SWAPPED : 0);
}
static int unaligned_ldmatrix(int bug)
{
    return multiply(32, bug ? UNALIGNED : 0);
}
static int mma_by_half_a_warp(int bug)
{
    return multiply(bug ? 16 : 32, 0);
}

const plant SYNC_PLANTS[] = {
    {"missing_syncthreads", missing_syncthreads},
    {"tile_overwritten_too_early", tile_overwritten_too_early},
    {"missing_syncwarp", missing_syncwarp},
    {"divergent_barrier", divergent_barrier},
    {"shuffle_in_a_branch", shuffle_in_a_branch},
    {"shuffle_from_outside_the_mask", shuffle_from_outside_the_mask},
    {"caller_not_in_its_mask", caller_not_in_its_mask},
    {"different_warp_functions", different_warp_functions},
    {"lanes_wait_for_each_other", lanes_wait_for_each_other},
    {"plain_sum_between_blocks", plain_sum_between_blocks},
    {"two_writers", two_writers},
    {"last_block_without_fence", last_block_without_fence},
    {"last_block_without_second_fence", last_block_without_second_fence},
    {"last_block_reads_before_atomic", last_block_reads_before_atomic},
    {"missing_cp_async_wait", missing_cp_async_wait},
    {"weak_cp_async_wait", weak_cp_async_wait},
    {"cp_async_never_waited_for", cp_async_never_waited_for},
    {"wrong_mma_layout", wrong_mma_layout},
    {"unaligned_ldmatrix", unaligned_ldmatrix},
    {"mma_by_half_a_warp", mma_by_half_a_warp},
    {NULL, NULL},
};
