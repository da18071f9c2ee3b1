/* The one entry for matrix products on the CPU (DESIGN 5.1).
 *
 * oneDNN splits K by the number of threads, so its own threading would change bits. Here the tiles of the output, and
 * of K where the output is small, are constants of the shape; a tile is one single-thread oneDNN call inside our
 * OpenMP loop; partials over K are added in index order. */
#include "cpu.h"
#include "onednn.h"
#include <assert.h>
#include <omp.h>

enum {
    TILE_ROWS = 820, /* large tiles have the best rate per call: each packs its operands again */
    TILE_COLS = 768,
    COPY_ROWS = 416, /* but a tile that only the epilogue sees stays in the second-level cache */
    COPY_COLS = 384,
    TILE_MIDDLE = 416, /* edges shrink to this for more tasks before K is cut */
    TILE_MIN = 96,     /* and to this after it */
    TILE_ROUND = 16,   /* edges are multiples of a cache line of floats */
    TASKS_WANTED = 16, /* enough for the cores that one rank gets; more costs rate */
    SPLIT_MIN = 512,   /* shortest K partial */
    CALL_DEPTH = 416,  /* K of a call with a transposed: packing walks down columns, whose lines share few cache sets */
};

/* How a product is cut: a function of its shape alone. */
typedef struct gemm_plan {
    int rows, cols, depth; /* of a task: an output tile, and its part of K */
    int row_tiles, col_tiles, splits;
} gemm_plan;

static int divide_up(int a, int b)
{
    return a / b + (a % b != 0);
}
static int min(int a, int b)
{
    return a < b ? a : b;
}

/* The edge of equal tiles of at most about `most` that cover `extent`. */
static int tile_edge(int extent, int most)
{
    int even = divide_up(extent, divide_up(extent, most));
    return min(divide_up(even, TILE_ROUND) * TILE_ROUND, extent);
}

static gemm_plan plan_make(int M, int N, int K, bool copy)
{
    gemm_plan plan = {.rows = tile_edge(M, copy ? COPY_ROWS : TILE_ROWS),
                      .cols = tile_edge(N, copy ? COPY_COLS : TILE_COLS),
                      .depth = K,
                      .splits = 1};
    for (;;) {
        plan.row_tiles = divide_up(M, plan.rows);
        plan.col_tiles = divide_up(N, plan.cols);
        if (plan.row_tiles * plan.col_tiles * plan.splits >= TASKS_WANTED) break;
        int largest = plan.rows > plan.cols ? plan.rows : plan.cols;
        if (plan.splits == 1 && largest <= TILE_MIDDLE && K >= 2 * SPLIT_MIN) {
            int splits = min(divide_up(TASKS_WANTED, plan.row_tiles * plan.col_tiles), K / SPLIT_MIN);
            plan.depth = divide_up(divide_up(K, splits), TILE_ROUND) * TILE_ROUND;
            plan.splits = divide_up(K, plan.depth);
        } else if (largest >= 2 * TILE_MIN) {
            if (plan.rows >= plan.cols)
                plan.rows = tile_edge(M, plan.rows / 2);
            else
                plan.cols = tile_edge(N, plan.cols / 2);
        } else {
            break;
        }
    }
    return plan;
}

/* p + index, in elements of `type` */
static const void *element(const void *p, fb3_dtype type, int64_t index)
{
    return (const char *)p + index * (int64_t)fb3_dtype_size(type);
}

bool fb3_cpu_gemm_serial(const fb3_gemm *g)
{
    assert(g->K > 0);
    if (g->M == 0 || g->N == 0) return true;
    return fb3_onednn_gemm(g->type, g->trans_a, g->trans_b, g->M, g->N, g->K, g->a, g->lda, g->b, g->ldb, g->accumulate,
                           g->c, g->ldc);
}

/* In a parallel region of one thread (a thread limit) oneDNN would not notice that it is inside one. */
void fb3_cpu_gemm_serial_begin(void)
{
    omp_set_num_threads(1);
}

/* Where tiles go: split 0 to c, or to the thread's copy where there is no c; the other splits to partials of their own.
 */
typedef struct gemm_memory {
    float *partials; // partials [splits - 1, M, N], or [splits, M, N] without c
    float *copies;   // copies [threads, rows, cols]
} gemm_memory;

static size_t memory_floats(const fb3_gemm *g, const gemm_plan *plan, gemm_memory *memory, float *base)
{
    bool copies = !g->c && plan->splits == 1;
    size_t partials = (size_t)(plan->splits - (g->c || copies)) * (size_t)g->M * (size_t)g->N;
    memory->partials = base;
    memory->copies = base ? base + partials : NULL;
    return partials + (copies ? (size_t)omp_get_max_threads() * (size_t)plan->rows * (size_t)plan->cols : 0);
}

/* The output of a task: *ld apart. */
static float *tile_at(const fb3_gemm *g, const gemm_plan *plan, const gemm_memory *memory, int row, int col, int split,
                      int64_t *ld)
{
    if (g->c && split == 0) {
        *ld = g->ldc;
        return g->c + row * g->ldc + col;
    }
    if (plan->splits == 1) {
        *ld = plan->cols;
        return memory->copies + (size_t)omp_get_thread_num() * (size_t)plan->rows * (size_t)plan->cols;
    }
    *ld = g->N;
    return memory->partials + (int64_t)(split - (g->c != NULL)) * g->M * g->N + (int64_t)row * g->N + col;
}

/* Tile (row, col) over the K range of `split`. */
static bool tile_multiply(const fb3_gemm *g, const gemm_plan *plan, const gemm_memory *memory, int row, int col,
                          int split)
{
    int64_t k = (int64_t)split * plan->depth, end = k + plan->depth < g->K ? k + plan->depth : g->K;
    fb3_gemm tile = *g;
    tile.M = min(plan->rows, g->M - row);
    tile.N = min(plan->cols, g->N - col);
    tile.c = tile_at(g, plan, memory, row, col, split, &tile.ldc);
    tile.accumulate = g->accumulate && split == 0;
    int64_t call_depth = g->trans_a ? CALL_DEPTH : plan->depth;
    bool done = true;
    do {
        tile.K = (int)(end - k < call_depth ? end - k : call_depth);
        tile.a = element(g->a, g->type, g->trans_a ? k * g->lda + row : row * g->lda + k);
        tile.b = element(g->b, g->type, g->trans_b ? col * g->ldb + k : k * g->ldb + col);
        done = done && fb3_cpu_gemm_serial(&tile);
        tile.accumulate = true;
        k += tile.K;
    } while (k < end);
    return done;
}

static void tile_add_partials(const fb3_gemm *g, const gemm_plan *plan, const gemm_memory *memory, int row, int col)
{
    int rows = min(plan->rows, g->M - row), cols = min(plan->cols, g->N - col);
    int64_t ld, partial_ld;
    float *sum = tile_at(g, plan, memory, row, col, 0, &ld);
    for (int split = 1; split < plan->splits; split++) {
        const float *partial = tile_at(g, plan, memory, row, col, split, &partial_ld);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++) sum[i * ld + j] += partial[i * partial_ld + j];
    }
}

static void tile_finish(const fb3_gemm *g, const gemm_plan *plan, const gemm_memory *memory, int row, int col)
{
    int64_t ld;
    float *tile = tile_at(g, plan, memory, row, col, 0, &ld);
    if (g->epilogue)
        g->epilogue(g->context, tile, ld, row, min(plan->rows, g->M - row), col, min(plan->cols, g->N - col));
}

fb3_status fb3_cpu_gemm(fb3_backend *be, const fb3_gemm *g)
{
    assert(g->M >= 0 && g->N >= 0 && g->K > 0 && (g->c || (g->epilogue && !g->accumulate)));
    if (g->M == 0 || g->N == 0) return FB3_OK;
    gemm_plan plan = plan_make(g->M, g->N, g->K, g->c == NULL);
    gemm_memory memory;
    size_t floats = memory_floats(g, &plan, &memory, NULL);
    float *base = NULL;
    if (floats > 0) FB3_TRY(fb3_cpu_workspace(be, &base, floats));
    (void)memory_floats(g, &plan, &memory, base);
    int tiles = plan.row_tiles * plan.col_tiles, failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        fb3_cpu_gemm_serial_begin();
#pragma omp for schedule(dynamic)
        for (int task = 0; task < tiles * plan.splits; task++) {
            int row = task % tiles / plan.col_tiles * plan.rows, col = task % plan.col_tiles * plan.cols;
            failures += !tile_multiply(g, &plan, &memory, row, col, task / tiles);
            if (plan.splits == 1) tile_finish(g, &plan, &memory, row, col);
        }
        if (plan.splits > 1) {
#pragma omp for schedule(dynamic)
            for (int tile = 0; tile < tiles; tile++) {
                int row = tile / plan.col_tiles * plan.rows, col = tile % plan.col_tiles * plan.cols;
                tile_add_partials(g, &plan, &memory, row, col);
                tile_finish(g, &plan, &memory, row, col);
            }
        }
    }
    FB3_REQUIRE(failures == 0, FB3_FAILED,
                "a matrix product [%d, %d] x [%d, %d] failed in oneDNN (out of memory); use a smaller batch", g->M,
                g->K, g->K, g->N);
    return FB3_OK;
}
