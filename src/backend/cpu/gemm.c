/* The one entry for matrix products on the CPU (DESIGN 5.1).
 *
 * oneDNN splits K by the number of threads, so its own threading would change bits. Here the tiles of the output, and
 * of K where the output is small, are constants of the shape; a tile is one single-thread oneDNN call inside our
 * OpenMP loop; partials over K are added in index order. dnnl_sgemm is the same call in oneDNN 2.x and 3.x. */
#include "cpu.h"
#include <assert.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

enum {
    TILE_ROWS = 820, /* large tiles have the best rate per call: each packs its operands again */
    TILE_COLS = 768,
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

static gemm_plan plan_make(int M, int N, int K)
{
    gemm_plan plan = {.rows = tile_edge(M, TILE_ROWS), .cols = tile_edge(N, TILE_COLS), .depth = K, .splits = 1};
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

bool fb3_cpu_gemm_serial(const fb3_gemm *g)
{
    assert(g->K > 0);
    if (g->M == 0 || g->N == 0) return true;
    return dnnl_sgemm(g->trans_a ? 'T' : 'N', g->trans_b ? 'T' : 'N', g->M, g->N, g->K, 1.0f, g->a, g->lda, g->b,
                      g->ldb, g->accumulate ? 1.0f : 0.0f, g->c, g->ldc) == dnnl_success;
}

/* In a parallel region of one thread (a thread limit) oneDNN would not notice that it is inside one. */
void fb3_cpu_gemm_serial_begin(void)
{
    omp_set_num_threads(1);
}

/* Tile (row, col) over the K range of `split`: split 0 goes to c, the others to their own partial [M, N]. */
static bool tile_multiply(const fb3_gemm *g, const gemm_plan *plan, int row, int col, int split, float *partials)
{
    int64_t k = (int64_t)split * plan->depth, end = k + plan->depth < g->K ? k + plan->depth : g->K;
    fb3_gemm tile = *g;
    tile.M = min(plan->rows, g->M - row);
    tile.N = min(plan->cols, g->N - col);
    if (split > 0) {
        tile.accumulate = false;
        tile.c = partials + (int64_t)(split - 1) * g->M * g->N;
        tile.ldc = g->N;
    }
    tile.c += row * tile.ldc + col;
    int64_t call_depth = g->trans_a ? CALL_DEPTH : plan->depth;
    bool done = true;
    do {
        tile.K = (int)(end - k < call_depth ? end - k : call_depth);
        tile.a = g->a + (g->trans_a ? k * g->lda + row : row * g->lda + k);
        tile.b = g->b + (g->trans_b ? col * g->ldb + k : k * g->ldb + col);
        done = done && fb3_cpu_gemm_serial(&tile);
        tile.accumulate = true;
        k += tile.K;
    } while (k < end);
    return done;
}

static void tile_add_partials(const fb3_gemm *g, const gemm_plan *plan, int row, int col, const float *partials)
{
    int rows = min(plan->rows, g->M - row), cols = min(plan->cols, g->N - col);
    for (int split = 1; split < plan->splits; split++) {
        const float *partial = partials + (int64_t)(split - 1) * g->M * g->N;
        for (int i = row; i < row + rows; i++)
            for (int j = col; j < col + cols; j++) g->c[i * g->ldc + j] += partial[(int64_t)i * g->N + j];
    }
}

fb3_status fb3_cpu_gemm(fb3_backend *be, const fb3_gemm *g)
{
    assert(g->M >= 0 && g->N >= 0 && g->K > 0);
    if (g->M == 0 || g->N == 0) return FB3_OK;
    gemm_plan plan = plan_make(g->M, g->N, g->K);
    float *partials = NULL; // partials [splits - 1, M, N]
    if (plan.splits > 1)
        FB3_TRY(fb3_cpu_workspace(be, &partials, (size_t)(plan.splits - 1) * (size_t)g->M * (size_t)g->N));
    int tiles = plan.row_tiles * plan.col_tiles, failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        fb3_cpu_gemm_serial_begin();
#pragma omp for schedule(dynamic)
        for (int task = 0; task < tiles * plan.splits; task++) {
            int row = task % tiles / plan.col_tiles * plan.rows, col = task % plan.col_tiles * plan.cols;
            failures += !tile_multiply(g, &plan, row, col, task / tiles, partials);
            if (plan.splits == 1 && g->epilogue)
                g->epilogue(g->context, row, min(plan.rows, g->M - row), col, min(plan.cols, g->N - col));
        }
        if (plan.splits > 1) {
#pragma omp for schedule(dynamic)
            for (int tile = 0; tile < tiles; tile++) {
                int row = tile / plan.col_tiles * plan.rows, col = tile % plan.col_tiles * plan.cols;
                tile_add_partials(g, &plan, row, col, partials);
                if (g->epilogue)
                    g->epilogue(g->context, row, min(plan.rows, g->M - row), col, min(plan.cols, g->N - col));
            }
        }
    }
    FB3_REQUIRE(failures == 0, FB3_FAILED,
                "a matrix product [%d, %d] x [%d, %d] failed in oneDNN (out of memory); use a smaller batch", g->M,
                g->K, g->K, g->N);
    return FB3_OK;
}
