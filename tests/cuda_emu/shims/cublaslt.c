/* cuBLASLt without a device: create, destroy, the heuristic and the product; all descriptors are the real library's.
 *
 * Rules and where they come from. [H] cublasLt.h of cuBLAS 13.1; [D] the cuBLAS manual, section cublasLtMatmul();
 * [P] tried on the real library here, without a device; [G] a guess on the strict side.
 *
 *   handle not created: NOT_INITIALIZED [H]; unexpected NULL, impossible configuration: INVALID_VALUE [D]
 *   types: A and B bf16 with C and D bf16 or fp32, or all fp32; FAST_TF32 with fp32 only; bias of D's type [D]
 *   setters accept any ld and any alignment [P], so shapes are checked by the heuristic and the product [G: status]
 *   C and D have one type, shape and batch; C == D in place needs equal layouts; ld of C may be 0: broadcast [D]
 *   promised alignment of A, B, C, D: 256 bytes unless the preference says otherwise [H]
 *   the workspace is 256-byte aligned, and too little of it is INVALID_VALUE [D]
 *   alignment of bias: derived from the pointer that the heuristic sees [H]; 16 bytes, as Marian NMT found on A100 [G]
 *   beta 0: C is not read (BLAS). C must not be NULL all the same [G]
 *   an algorithm belongs to the shapes, types and alignments that the heuristic was asked about [G: cuBLASLt may run
 *   it on others]
 *
 * Only what the backend uses is emulated: column order, host scalars, strided batches, the epilogues DEFAULT and BIAS.
 * Anything else is refused with a line that says so, never ignored. */
#include "shim.h"

#include <cublasLt.h>
#include <limits.h>
#include <stddef.h>

#define NAME "cublasLt"

enum { WORKSPACE_ALIGNMENT = 256, BIAS_ALIGNMENT = 16, DEFAULT_ALIGNMENT = 256 };

struct cublasLtContext {
    struct cublasLtContext *next;
};

static struct cublasLtContext *contexts; /* the live ones */

typedef struct layout {
    uint64_t rows, cols;
    int64_t ld, stride; /* in elements */
    int32_t batch, type;
} layout;

/* What the heuristic is asked about: no pointers, and no padding that is not zero, for it is hashed. */
typedef struct problem {
    layout a, b, c, d;
    int32_t trans_a, trans_b;
    int32_t compute, epilogue;
    int64_t bias_stride;
} problem;

/* What the opaque algorithm holds. */
typedef struct promise {
    uint64_t magic, shape; /* shape: hash of the problem */
    uint64_t workspace;
    uint32_t m, n, k;      /* for messages */
    uint32_t alignment[4]; /* of A, B, C, D */
} promise;

static const uint64_t PROMISE_MAGIC = UINT64_C(0x66623373686d6c74);
_Static_assert(sizeof(promise) <= sizeof(cublasLtMatmulAlgo_t), "does not fit the opaque algorithm");

/* A queued product. */
typedef struct work {
    problem p;
    const void *a, *b, *c, *bias;
    void *d, *workspace;
    uint64_t workspace_bytes;
    float alpha, beta;
    cudaStream_t stream;
    struct work *next;
} work;

static work *queued; /* those that have not run */

#define REFUSE(status, ...) return (shim_note(NAME, #status ": " __VA_ARGS__), CUBLAS_STATUS_##status)

static bool is_live(cublasLtHandle_t handle)
{
    for (struct cublasLtContext *c = contexts; c; c = c->next)
        if (c == handle) return true;
    return false;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    if (!handle) REFUSE(INVALID_VALUE, "cublasLtCreate: NULL");
    *handle = shim_alloc(sizeof **handle);
    (*handle)->next = contexts;
    contexts = *handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    for (struct cublasLtContext **at = &contexts; *at; at = &(*at)->next) {
        if (*at != handle) continue;
        *at = handle->next;
        free(handle);
        return CUBLAS_STATUS_SUCCESS;
    }
    REFUSE(NOT_INITIALIZED, "cublasLtDestroy: no such handle");
}

/* --- reading the real descriptors --------------------------------------------------------------------------------- */

static bool read_layout(layout *out, cublasLtMatrixLayout_t from)
{
    size_t written;
    int32_t order;
    int64_t plane;
    memset(out, 0, sizeof *out);
#define READ(attribute, field)                                                                                         \
    cublasLtMatrixLayoutGetAttribute(from, CUBLASLT_MATRIX_LAYOUT_##attribute, &(field), sizeof(field), &written)
    bool ok = !READ(TYPE, out->type) && !READ(ORDER, order) && !READ(ROWS, out->rows) && !READ(COLS, out->cols) &&
              !READ(LD, out->ld) && !READ(BATCH_COUNT, out->batch) && !READ(STRIDED_BATCH_OFFSET, out->stride) &&
              !READ(PLANE_OFFSET, plane);
#undef READ
    return ok && order == CUBLASLT_ORDER_COL && plane == 0;
}

/* Attributes that change the result and are not emulated: each must be zero, its default. */
static const struct {
    cublasLtMatmulDescAttributes_t attribute;
    size_t bytes;
    const char *name;
} not_emulated[] = {
    {CUBLASLT_MATMUL_DESC_POINTER_MODE, 4, "POINTER_MODE"},
    {CUBLASLT_MATMUL_DESC_TRANSC, 4, "TRANSC"},
    {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, 8, "EPILOGUE_AUX_POINTER"},
    {CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE, 8, "ALPHA_VECTOR_BATCH_STRIDE"},
    {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, 8, "A_SCALE_POINTER"},
    {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, 8, "B_SCALE_POINTER"},
    {CUBLASLT_MATMUL_DESC_C_SCALE_POINTER, 8, "C_SCALE_POINTER"},
    {CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, 8, "D_SCALE_POINTER"},
    {CUBLASLT_MATMUL_DESC_AMAX_D_POINTER, 8, "AMAX_D_POINTER"},
    {CUBLASLT_MATMUL_DESC_FAST_ACCUM, 1, "FAST_ACCUM"},
};

static cublasStatus_t read_operation(problem *p, const void **bias, cublasLtMatmulDesc_t from)
{
    size_t written;
    int32_t scale, fill, bias_type;
#define READ(attribute, field)                                                                                         \
    if (cublasLtMatmulDescGetAttribute(from, CUBLASLT_MATMUL_DESC_##attribute, &(field), sizeof(field), &written))     \
    REFUSE(INVALID_VALUE, "the operation descriptor does not tell its " #attribute)
    READ(COMPUTE_TYPE, p->compute);
    READ(SCALE_TYPE, scale);
    READ(TRANSA, p->trans_a);
    READ(TRANSB, p->trans_b);
    READ(FILL_MODE, fill);
    READ(EPILOGUE, p->epilogue);
    READ(BIAS_POINTER, *bias);
    READ(BIAS_BATCH_STRIDE, p->bias_stride);
    READ(BIAS_DATA_TYPE, bias_type);
#undef READ
    for (size_t i = 0; i < sizeof not_emulated / sizeof *not_emulated; i++) {
        uint64_t value = 0;
        if (cublasLtMatmulDescGetAttribute(from, not_emulated[i].attribute, &value, not_emulated[i].bytes, &written) ||
            value)
            REFUSE(NOT_SUPPORTED, "attribute %s is not emulated", not_emulated[i].name);
    }
    if (fill != CUBLAS_FILL_MODE_FULL) REFUSE(NOT_SUPPORTED, "fill mode %d is not emulated", fill);
    if (scale != CUDA_R_32F) REFUSE(NOT_SUPPORTED, "scale type %d: fp32 arithmetic has scalars of CUDA_R_32F", scale);
    if (p->epilogue != CUBLASLT_EPILOGUE_DEFAULT && p->epilogue != CUBLASLT_EPILOGUE_BIAS)
        REFUSE(NOT_SUPPORTED, "epilogue %d is not emulated", p->epilogue);
    if (p->epilogue == CUBLASLT_EPILOGUE_BIAS && bias_type != -1 && bias_type != p->d.type)
        REFUSE(NOT_SUPPORTED, "bias of type %d with D of type %d: both must be the same", bias_type, p->d.type);
    if (p->epilogue != CUBLASLT_EPILOGUE_BIAS) p->bias_stride = 0, *bias = NULL;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_types(const problem *p)
{
    bool bf16_in = p->a.type == CUDA_R_16BF, bf16_out = p->d.type == CUDA_R_16BF;
    bool known = (bf16_in || p->a.type == CUDA_R_32F) && (bf16_out || p->d.type == CUDA_R_32F);
    if (p->a.type != p->b.type || p->c.type != p->d.type || !known || (bf16_out && !bf16_in))
        REFUSE(NOT_SUPPORTED, "types A %d B %d C %d D %d (CUDA_R_32F %d, CUDA_R_16BF %d)", p->a.type, p->b.type,
               p->c.type, p->d.type, CUDA_R_32F, CUDA_R_16BF);
    switch (p->compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
        return CUBLAS_STATUS_SUCCESS;
    case CUBLAS_COMPUTE_32F_FAST_TF32:
        if (bf16_in) REFUSE(NOT_SUPPORTED, "CUBLAS_COMPUTE_32F_FAST_TF32 takes fp32 matrices, not bf16");
        return CUBLAS_STATUS_SUCCESS;
    default:
        REFUSE(NOT_SUPPORTED, "compute type %d is not emulated", p->compute);
    }
}

/* Are two elements of one matrix of a batch never the same memory? Matrices lie one after the other, or their columns
 * are interleaved as the heads of [T, heads, head_size] are. */
static bool is_disjoint(const layout *x)
{
    if (x->batch == 1) return true;
    int64_t rows = (int64_t)x->rows, span = (int64_t)(x->cols - 1) * x->ld + rows;
    return x->stride >= span || (x->stride >= rows && (x->batch - 1) * x->stride + rows <= x->ld);
}

static cublasStatus_t check_shapes(const problem *p)
{
    const layout *all[] = {&p->a, &p->b, &p->c, &p->d};
    for (int i = 0; i < 4; i++) {
        const layout *x = all[i];
        char which = (char)('A' + i);
        if (!x->rows || !x->cols || x->rows > INT_MAX || x->cols > INT_MAX)
            REFUSE(INVALID_VALUE, "%c is %llu x %llu", which, (unsigned long long)x->rows, (unsigned long long)x->cols);
        if (x->ld < (int64_t)x->rows && !(i == 2 && x->ld == 0))
            REFUSE(INVALID_VALUE, "%c has %llu rows and a leading dimension of %lld", which,
                   (unsigned long long)x->rows, (long long)x->ld);
        if (x->batch < 1 || x->batch != p->d.batch)
            REFUSE(INVALID_VALUE, "batch of %c is %d, that of D %d", which, x->batch, p->d.batch);
        if (x->stride < 0) REFUSE(NOT_SUPPORTED, "batch stride %lld of %c", (long long)x->stride, which);
    }
    uint64_t m = p->trans_a ? p->a.cols : p->a.rows, ka = p->trans_a ? p->a.rows : p->a.cols;
    uint64_t n = p->trans_b ? p->b.rows : p->b.cols, kb = p->trans_b ? p->b.cols : p->b.rows;
    if (m != p->d.rows || n != p->d.cols || ka != kb)
        REFUSE(INVALID_VALUE, "op(A) is %llu x %llu, op(B) %llu x %llu, D %llu x %llu", (unsigned long long)m,
               (unsigned long long)ka, (unsigned long long)kb, (unsigned long long)n, (unsigned long long)p->d.rows,
               (unsigned long long)p->d.cols);
    if (p->c.rows != p->d.rows || p->c.cols != p->d.cols) REFUSE(INVALID_VALUE, "C and D differ in shape");
    if (!is_disjoint(&p->d))
        shim_misuse(NAME, "the matrices of D's batch overlap (stride %lld)", (long long)p->d.stride);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t read_problem(problem *p, const void **bias, cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                   cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                   cublasLtMatrixLayout_t d)
{
    if (!is_live(handle)) REFUSE(NOT_INITIALIZED, "no such handle");
    /* the manual of 13.x lets Cdesc be omitted; that of 12.x does not */
    if (!op || !a || !b || !c || !d) REFUSE(INVALID_VALUE, "a descriptor is NULL");
    memset(p, 0, sizeof *p);
    if (!read_layout(&p->a, a) || !read_layout(&p->b, b) || !read_layout(&p->c, c) || !read_layout(&p->d, d))
        REFUSE(NOT_SUPPORTED, "only matrices in column order are emulated");
    cublasStatus_t status = read_operation(p, bias, op);
    /* the matrices are real: conjugate transposed is transposed */
    p->trans_a = p->trans_a != CUBLAS_OP_N, p->trans_b = p->trans_b != CUBLAS_OP_N;
    if (!status) status = check_types(p);
    if (!status) status = check_shapes(p);
    return status;
}

/* --- the heuristic and its promise -------------------------------------------------------------------------------- */

static uint64_t hash(const void *data, size_t bytes)
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
    for (size_t i = 0; i < bytes; i++) h = (h ^ ((const unsigned char *)data)[i]) * UINT64_C(1099511628211);
    return h;
}

static uint64_t round_up(uint64_t x, uint64_t to)
{
    return (x + to - 1) / to * to;
}

/* The workspace wanted is that of one set of partial sums: it depends on the shape, as the real one does. */
static promise promise_for(const problem *p, const uint32_t alignment[4], uint64_t workspace_limit)
{
    promise made = {PROMISE_MAGIC,
                    hash(p, sizeof *p),
                    0,
                    (uint32_t)p->d.rows,
                    (uint32_t)p->d.cols,
                    (uint32_t)(p->trans_a ? p->a.rows : p->a.cols),
                    {0}};
    uint64_t wanted = round_up(p->d.rows * p->d.cols * sizeof(float), WORKSPACE_ALIGNMENT);
    made.workspace = wanted <= workspace_limit ? wanted : workspace_limit / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    memcpy(made.alignment, alignment, sizeof made.alignment);
    return made;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int *returned)
{
    problem p;
    const void *bias;
    if (returned) *returned = 0;
    cublasStatus_t status = read_problem(&p, &bias, handle, op, a, b, c, d);
    if (status) return status;
    if (!preference || !results || !returned) REFUSE(INVALID_VALUE, "the heuristic's preference or result is NULL");
    if (requested < 1) REFUSE(INVALID_VALUE, "the heuristic is asked for %d algorithms", requested);
    if ((uintptr_t)bias % BIAS_ALIGNMENT) REFUSE(NOT_SUPPORTED, "bias at %p is not 16-byte aligned", bias);

    size_t written;
    uint64_t limit;
    uint32_t alignment[4];
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    if (cublasLtMatmulPreferenceGetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &limit, sizeof limit,
                                             &written))
        REFUSE(INVALID_VALUE, "the preference does not tell its workspace");
    for (int i = 0; i < 4; i++) {
        if (cublasLtMatmulPreferenceGetAttribute(preference, alignments[i], alignment + i, sizeof *alignment, &written))
            REFUSE(INVALID_VALUE, "the preference does not tell its alignments");
        if (!alignment[i] || alignment[i] & (alignment[i] - 1))
            REFUSE(INVALID_VALUE, "alignment of %c is %u bytes, not a power of two", 'A' + i, alignment[i]);
    }
    promise made = promise_for(&p, alignment, limit);
    memset(results, 0, sizeof *results);
    memcpy(&results->algo, &made, sizeof made);
    results->workspaceSize = made.workspace;
    results->state = CUBLAS_STATUS_SUCCESS;
    results->wavesCount = 1;
    *returned = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* --- what memory a product touches -------------------------------------------------------------------------------- */

static shim_type type_of(const layout *x)
{
    return x->type == CUDA_R_16BF ? SHIM_BF16 : SHIM_F32;
}

static size_t bytes_of(const layout *x)
{
    return shim_type_bytes(type_of(x));
}

typedef struct range {
    uintptr_t begin, end;
} range;

/* The memory of a matrix: one range per column, or one per matrix where columns touch. For each range `visit` is
 * called. */
static void each_range(const void *data, const layout *x, void (*visit)(void *context, range r), void *context)
{
    bool packed = x->ld == (int64_t)x->rows;
    uint64_t cols = packed ? 1 : x->ld ? x->cols : 1, length = packed ? x->rows * x->cols : x->rows;
    for (int b = 0; b < x->batch; b++)
        for (uint64_t j = 0; j < cols; j++) {
            uintptr_t at = (uintptr_t)data + (uintptr_t)(b * x->stride + (int64_t)j * x->ld) * bytes_of(x);
            visit(context, (range){at, at + length * bytes_of(x)});
        }
}

static void visit_read(void *context, range r)
{
    (void)context;
    cudaemu_reads((const void *)r.begin, r.end - r.begin);
}

static void visit_written(void *context, range r)
{
    (void)context;
    cudaemu_written((void *)r.begin, r.end - r.begin);
}

typedef struct ranges {
    range *r;
    size_t count, capacity;
} ranges;

static void visit_collect(void *context, range r)
{
    ranges *all = context;
    if (all->count == all->capacity) {
        all->capacity *= 2;
        all->r = realloc(all->r, sizeof(range) * all->capacity);
        if (!all->r) shim_misuse(NAME, "no memory on the host");
    }
    all->r[all->count++] = r;
}

static int compare_ranges(const void *left, const void *right)
{
    uintptr_t a = ((const range *)left)->begin, b = ((const range *)right)->begin;
    return (a > b) - (a < b);
}

/* Exact: slices of one packed array, such as Q, K and V side by side, do not overlap although their spans do. */
static bool overlap(const void *left, const layout *l, const void *right, const layout *r)
{
    ranges a = {shim_alloc(64 * sizeof(range)), 0, 64}, b = {shim_alloc(64 * sizeof(range)), 0, 64};
    each_range(left, l, visit_collect, &a);
    each_range(right, r, visit_collect, &b);
    qsort(a.r, a.count, sizeof(range), compare_ranges);
    qsort(b.r, b.count, sizeof(range), compare_ranges);
    bool found = false;
    for (size_t i = 0, j = 0; !found && i < a.count && j < b.count;) {
        found = a.r[i].begin < b.r[j].end && b.r[j].begin < a.r[i].end;
        if (a.r[i].end < b.r[j].end)
            i++;
        else
            j++;
    }
    free(a.r);
    free(b.r);
    return found;
}

/* The workspace is scratch of one product at a time. Two unfinished products on different streams that share it are
 * legal only if events keep them apart, which cannot be seen here; the backend has no reason to do that. */
static void check_workspace(const work *w)
{
    layout bytes = {(w->workspace_bytes + 1) / 2, 1, (int64_t)((w->workspace_bytes + 1) / 2), 0, 1, CUDA_R_16BF};
    if (!w->workspace_bytes) return;
    if (overlap(w->workspace, &bytes, w->a, &w->p.a) || overlap(w->workspace, &bytes, w->b, &w->p.b) ||
        overlap(w->workspace, &bytes, w->c, &w->p.c) || overlap(w->workspace, &bytes, w->d, &w->p.d))
        shim_misuse(NAME, "the workspace overlaps a matrix");
    for (const work *other = queued; other; other = other->next)
        if (other->stream != w->stream && other->workspace_bytes &&
            (uintptr_t)other->workspace < (uintptr_t)w->workspace + w->workspace_bytes &&
            (uintptr_t)w->workspace < (uintptr_t)other->workspace + other->workspace_bytes)
            shim_misuse(NAME, "products on two streams share the workspace at %p", w->workspace);
}

static void check_pointers(const work *w, const promise *made)
{
    const void *pointers[] = {w->a, w->b, w->c, w->d};
    const layout *layouts[] = {&w->p.a, &w->p.b, &w->p.c, &w->p.d};
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)pointers[i] % made->alignment[i] || (uintptr_t)pointers[i] % bytes_of(layouts[i]))
            shim_misuse(NAME, "%c at %p: the heuristic was promised an alignment of %u bytes", 'A' + i, pointers[i],
                        made->alignment[i]);
    if ((uintptr_t)w->bias % BIAS_ALIGNMENT)
        shim_misuse(NAME, "bias at %p is not aligned to %d bytes", w->bias, BIAS_ALIGNMENT);
    if (overlap(w->d, &w->p.d, w->a, &w->p.a)) shim_misuse(NAME, "D overlaps A");
    if (overlap(w->d, &w->p.d, w->b, &w->p.b)) shim_misuse(NAME, "D overlaps B");
    if (w->c == w->d && memcmp(&w->p.c, &w->p.d, sizeof w->p.c) != 0)
        shim_misuse(NAME, "C == D with layouts that differ");
    if (w->c != w->d && w->beta != 0 && overlap(w->d, &w->p.d, w->c, &w->p.c))
        shim_misuse(NAME, "D overlaps C and is not C");
}

/* --- the product -------------------------------------------------------------------------------------------------- */

static shim_matrix operand(const void *data, const layout *x, bool transposed, int batch)
{
    shim_matrix matrix = {(const char *)data + batch * x->stride * (int64_t)bytes_of(x), type_of(x), 1, x->ld};
    if (transposed) matrix.row_stride = x->ld, matrix.col_stride = 1;
    return matrix;
}

/* D = alpha product + beta C + bias, all in fp32, rounded once. */
static void epilogue(const work *w, int batch, const float *product)
{
    const layout *d = &w->p.d, *c = &w->p.c;
    for (int64_t j = 0; j < (int64_t)d->cols; j++)
        for (int64_t i = 0; i < (int64_t)d->rows; i++) {
            float x = w->alpha * product[i + j * (int64_t)d->rows];
            if (w->beta != 0) x += w->beta * shim_load(w->c, type_of(c), batch * c->stride + j * c->ld + i);
            if (w->bias) x += shim_load(w->bias, type_of(d), batch * w->p.bias_stride + i);
            shim_store(w->d, type_of(d), batch * d->stride + j * d->ld + i, x);
        }
}

static long long bytes_of_batch(const layout *x)
{
    return (long long)(x->rows * x->cols * (uint64_t)x->batch * bytes_of(x));
}

static void trace(const work *w, int m, int n, int k)
{
    const problem *p = &w->p;
    const long long c_bytes = w->beta != 0 ? bytes_of_batch(&p->c) : 0;
    const long long numbers[] = {m,
                                 n,
                                 k,
                                 p->d.batch,
                                 bytes_of_batch(&p->a),
                                 bytes_of_batch(&p->b),
                                 c_bytes,
                                 bytes_of_batch(&p->d),
                                 w->beta != 0,
                                 w->bias != NULL};
    cudaemu_trace_product(numbers, sizeof numbers / sizeof *numbers);
}

static void visit_clear(void *context, range r)
{
    (void)context;
    memset((void *)r.begin, 0, r.end - r.begin);
}

static void multiply(const work *w, int m, int n, int k)
{
    const problem *p = &w->p;
    float *product = shim_alloc(sizeof(float) * (size_t)m * (size_t)n);
    for (int b = 0; b < p->d.batch; b++) {
        shim_matrix left = operand(w->a, &p->a, p->trans_a, b), right = operand(w->b, &p->b, p->trans_b, b);
        shim_gemm(product, m, n, k, &left, &right, p->compute == CUBLAS_COMPUTE_32F_FAST_TF32);
        epilogue(w, b, product);
    }
    free(product);
}

static int run(void *arg)
{
    work *w = arg;
    const problem *p = &w->p;
    int m = (int)p->d.rows, n = (int)p->d.cols, k = (int)(p->trans_a ? p->a.rows : p->a.cols);
    trace(w, m, n, k);
    each_range(w->a, &p->a, visit_read, NULL);
    each_range(w->b, &p->b, visit_read, NULL);
    if (w->beta != 0) each_range(w->c, &p->c, visit_read, NULL);
    if (w->bias)
        for (int b = 0; b < p->d.batch; b++)
            cudaemu_reads((const char *)w->bias + b * p->bias_stride * (int64_t)bytes_of(&p->d),
                          (size_t)m * bytes_of(&p->d));
    each_range(w->d, &p->d, visit_written, NULL); /* before the stores: it checks the range */
    if (w->workspace_bytes) {
        cudaemu_written(w->workspace, w->workspace_bytes);
        memset(w->workspace, 0xff, w->workspace_bytes); /* NaN: whoever keeps something there sees it */
    }
    if (cudaemu_products_run())
        multiply(w, m, n, k);
    else
        each_range(w->d, &p->d, visit_clear, NULL);
    work **at = &queued;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    free(w);
    return 1;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    work w = {.a = a, .b = b, .c = c, .d = d, .workspace = workspace, .stream = stream};
    cublasStatus_t status = read_problem(&w.p, &w.bias, handle, op, a_layout, b_layout, c_layout, d_layout);
    if (status) return status;
    if (!alpha || !beta || !a || !b || !c || !d) REFUSE(INVALID_VALUE, "cublasLtMatmul: a scalar or a matrix is NULL");
    if (w.p.epilogue == CUBLASLT_EPILOGUE_BIAS && !w.bias) REFUSE(INVALID_VALUE, "epilogue BIAS without a bias");
    memcpy(&w.alpha, alpha, sizeof w.alpha);
    memcpy(&w.beta, beta, sizeof w.beta);

    /* without an algorithm, the heuristic is asked with default preferences [D] */
    static const uint32_t defaults[4] = {DEFAULT_ALIGNMENT, DEFAULT_ALIGNMENT, DEFAULT_ALIGNMENT, DEFAULT_ALIGNMENT};
    promise made = promise_for(&w.p, defaults, 0);
    if (algo) {
        uint64_t shape = made.shape;
        memcpy(&made, algo, sizeof made);
        if (made.magic != PROMISE_MAGIC) shim_misuse(NAME, "the algorithm does not come from the heuristic");
        if (made.shape != shape)
            shim_misuse(NAME,
                        "the algorithm is for another problem: m %u n %u k %u, here m %llu n %llu; or types, "
                        "leading dimensions, batch, transpositions or epilogue differ",
                        made.m, made.n, made.k, (unsigned long long)w.p.d.rows, (unsigned long long)w.p.d.cols);
    }
    if (workspace_bytes < made.workspace || (made.workspace && !workspace))
        REFUSE(INVALID_VALUE, "a workspace of %zu bytes at %p, and the algorithm takes %llu", workspace_bytes,
               workspace, (unsigned long long)made.workspace);
    if (workspace_bytes && (uintptr_t)workspace % WORKSPACE_ALIGNMENT)
        shim_misuse(NAME, "the workspace at %p is not aligned to %d bytes", workspace, WORKSPACE_ALIGNMENT);
    w.workspace_bytes = made.workspace;
    check_pointers(&w, &made);
    check_workspace(&w);

    work *kept = shim_alloc(sizeof *kept);
    *kept = w;
    kept->next = queued;
    queued = kept;
    cudaemu_enqueue(stream, run, kept);
    return CUBLAS_STATUS_SUCCESS;
}
