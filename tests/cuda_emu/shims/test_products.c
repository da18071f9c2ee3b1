/* Matrix products of the cuBLASLt shim against double precision, and what it refuses. */
#include "test_shims.h"

#include <cublasLt.h>
#include <math.h>

enum { GUARD = 3 }; /* rows of padding, which must stay as they are */

typedef struct matrix {
    int rows, cols, batch;
    cudaDataType type;
    int64_t ld, stride;
    size_t elements; /* of the allocation */
    float *host;     /* what the device holds, after rounding to the type */
    void *device;
} matrix;

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void upload(matrix *m)
{
    uint16_t *narrow = malloc(2 * m->elements);
    for (size_t i = 0; i < m->elements; i++) {
        narrow[i] = to_bf16(m->host[i]);
        if (m->type == CUDA_R_16BF) m->host[i] = from_bf16(narrow[i]);
    }
    bool bf16 = m->type == CUDA_R_16BF;
    m->device = device_copy(bf16 ? (void *)narrow : m->host, (bf16 ? 2 : 4) * m->elements);
    free(narrow);
}

static float *download(const matrix *m)
{
    float *wide = malloc(4 * m->elements);
    uint16_t *narrow = malloc(2 * m->elements);
    if (m->type == CUDA_R_16BF) {
        host_copy(narrow, m->device, 2 * m->elements);
        for (size_t i = 0; i < m->elements; i++) wide[i] = from_bf16(narrow[i]);
    } else {
        host_copy(wide, m->device, 4 * m->elements);
    }
    free(narrow);
    return wide;
}

typedef enum { PACKED, PADDED, INTERLEAVED } arrangement;

static matrix make(cudaDataType type, int rows, int cols, int batch, arrangement how)
{
    matrix m = {rows, cols, batch, type, rows, 0, 0, NULL, NULL};
    if (how == PADDED) m.ld = rows + GUARD;
    m.stride = m.ld * cols + (how == PADDED ? 5 : 0);
    if (how == INTERLEAVED) m.stride = rows + 1, m.ld = batch * m.stride;
    m.elements = (size_t)((batch - 1) * m.stride + (cols - 1) * m.ld + rows + GUARD);
    m.host = malloc(4 * m.elements);
    for (size_t i = 0; i < m.elements; i++) m.host[i] = (float)test_random();
    upload(&m);
    return m;
}

static void drop(matrix *m)
{
    MUST(cudaFree(m->device));
    free(m->host);
}

static cublasLtMatrixLayout_t layout_of(const matrix *m)
{
    cublasLtMatrixLayout_t layout;
    MUST(cublasLtMatrixLayoutCreate(&layout, m->type, (uint64_t)m->rows, (uint64_t)m->cols, m->ld));
    MUST(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &m->batch, sizeof m->batch));
    MUST(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m->stride,
                                          sizeof m->stride));
    return layout;
}

/* One product with everything that the library needs to know about it. */
typedef struct call {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c, d;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    const void *a_data, *b_data, *c_data;
    void *d_data, *workspace;
    size_t workspace_bytes;
    float alpha, beta;
    cudaStream_t stream;
} call;

static cublasLtHandle_t handle;
static cudaStream_t stream;
static void *workspace;
static const uint64_t workspace_bytes = 1 << 16;

#define SET_OP(c, attribute, value)                                                                                    \
    MUST(cublasLtMatmulDescSetAttribute((c)->op, CUBLASLT_MATMUL_DESC_##attribute, &(value), sizeof(value)))
#define SET_PREFERENCE(c, attribute, value)                                                                            \
    MUST(cublasLtMatmulPreferenceSetAttribute((c)->preference, CUBLASLT_MATMUL_PREF_##attribute, &(value),             \
                                              sizeof(value)))

static call prepare(const matrix *a, const matrix *b, const matrix *c, const matrix *d, bool trans_a, bool trans_b,
                    cublasComputeType_t compute, const void *bias)
{
    call made = {.handle = handle, .a = layout_of(a), .b = layout_of(b), .c = layout_of(c), .d = layout_of(d)};
    made.a_data = a->device, made.b_data = b->device, made.c_data = c->device, made.d_data = d->device;
    made.workspace = workspace, made.workspace_bytes = workspace_bytes, made.stream = stream;
    made.alpha = 1;
    MUST(cublasLtMatmulDescCreate(&made.op, compute, CUDA_R_32F));
    int32_t ta = trans_a ? CUBLAS_OP_T : CUBLAS_OP_N, tb = trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    SET_OP(&made, TRANSA, ta);
    SET_OP(&made, TRANSB, tb);
    if (bias) {
        uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        SET_OP(&made, EPILOGUE, epilogue);
        SET_OP(&made, BIAS_POINTER, bias);
    }
    MUST(cublasLtMatmulPreferenceCreate(&made.preference));
    SET_PREFERENCE(&made, MAX_WORKSPACE_BYTES, workspace_bytes);
    return made;
}

static cublasStatus_t ask(call *c)
{
    int got = 0;
    cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(c->handle, c->op, c->a, c->b, c->c, c->d, c->preference, 1, &c->result, &got);
    return status ? status : got == 1 ? c->result.state : CUBLAS_STATUS_INTERNAL_ERROR;
}

static cublasStatus_t multiply(call *c)
{
    return cublasLtMatmul(c->handle, c->op, &c->alpha, c->a_data, c->a, c->b_data, c->b, &c->beta, c->c_data, c->c,
                          c->d_data, c->d, &c->result.algo, c->workspace, c->workspace_bytes, c->stream);
}

static void finish(call *c)
{
    cublasLtMatmulPreferenceDestroy(c->preference);
    cublasLtMatmulDescDestroy(c->op);
    cublasLtMatrixLayoutDestroy(c->a);
    cublasLtMatrixLayoutDestroy(c->b);
    cublasLtMatrixLayoutDestroy(c->c);
    cublasLtMatrixLayoutDestroy(c->d);
}

/* --- against double ----------------------------------------------------------------------------------------------- */

static double element(const matrix *m, const float *data, int batch, int i, int j, bool transposed)
{
    return data[batch * m->stride + (transposed ? i * m->ld + j : j * m->ld + i)];
}

/* Rounding to 11 significant bits, ties away from zero, by arithmetic: not how the shim does it. */
static double tf32(double x)
{
    int exponent;
    double fraction = frexp(x, &exponent);
    return ldexp(round(ldexp(fraction, 11)), exponent - 11);
}

/* D's elements, and that nothing between and behind them was written. */
static void compare(const matrix *a, const matrix *b, const matrix *c, const matrix *d, bool ta, bool tb, bool rounds,
                    const float *bias, float alpha, float beta, const float *got, const char *what)
{
    char *seen = calloc(1, d->elements);
    int K = ta ? a->rows : a->cols;
    double worst = 0;
    for (int batch = 0; batch < d->batch; batch++)
        for (int j = 0; j < d->cols; j++)
            for (int i = 0; i < d->rows; i++) {
                double sum = 0, size = 0;
                for (int k = 0; k < K; k++) {
                    double x = element(a, a->host, batch, i, k, ta), y = element(b, b->host, batch, k, j, tb);
                    double product = rounds ? tf32(x) * tf32(y) : x * y;
                    sum += product, size += fabs(product);
                }
                sum *= alpha, size = size * fabs(alpha) + 1e-30;
                if (beta != 0) sum += beta * element(c, c->host, batch, i, j, false), size += 1;
                if (bias) sum += bias[i], size += 1;
                int64_t at = batch * d->stride + j * d->ld + i;
                double allowed = 2e-7 * size * (2 + sqrt(K)) + (d->type == CUDA_R_16BF ? fabs(sum) / 256 : 0);
                double error = fabs(got[at] - sum) / allowed;
                if (!(error <= worst)) worst = error;
                seen[at] = 1;
            }
    bool untouched = true;
    for (size_t i = 0; i < d->elements; i++)
        if (!seen[i] && got[i] != d->host[i]) untouched = false;
    CHECK(worst <= 1, "%s: error %g times the tolerance", what, worst);
    CHECK(untouched, "%s: wrote outside of D", what);
    free(seen);
}

typedef struct kinds {
    cudaDataType in, out;
    cublasComputeType_t compute;
} kinds;

static void one_product(kinds kind, const int mnk[3], bool ta, bool tb, int batch, arrangement how, bool with_bias,
                        float alpha, float beta, bool in_place)
{
    int m = mnk[0], n = mnk[1], k = mnk[2];
    matrix a = make(kind.in, ta ? k : m, ta ? m : k, batch, how), b = make(kind.in, tb ? n : k, tb ? k : n, batch, how);
    matrix d = make(kind.out, m, n, batch, how), c = d;
    if (!in_place) c = make(kind.out, m, n, batch, PACKED);
    matrix bias = make(kind.out, m, 1, 1, PACKED);
    char what[160];
    snprintf(what, sizeof what, "in %d out %d compute %d, %dx%dx%d %c%c batch %d arrangement %d bias %d beta %g %s",
             kind.in, kind.out, kind.compute, m, n, k, ta ? 'T' : 'N', tb ? 'T' : 'N', batch, how, with_bias, beta,
             in_place ? "in place" : "");
    call product = prepare(&a, &b, &c, &d, ta, tb, kind.compute, with_bias ? bias.device : NULL);
    product.alpha = alpha, product.beta = beta;
    MUST(ask(&product));
    MUST(multiply(&product));
    finish(&product); /* descriptors may go as soon as the call is back */
    MUST(cudaStreamSynchronize(stream));
    float *got = download(&d);
    compare(&a, &b, &c, &d, ta, tb, kind.compute == CUBLAS_COMPUTE_32F_FAST_TF32, with_bias ? bias.host : NULL, alpha,
            beta, got, what);
    free(got);
    drop(&a), drop(&b), drop(&d), drop(&bias);
    if (!in_place) drop(&c);
}

static void all_products(void)
{
    static const kinds all[] = {{CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
                                {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32},
                                {CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F},
                                {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F}};
    static const int sizes[][3] = {{1, 1, 1}, {7, 5, 3}, {33, 7, 17}, {64, 48, 96}, {70, 13, 129}};
    for (size_t kind = 0; kind < 4; kind++)
        for (size_t size = 0; size < 5; size++)
            for (int trans = 0; trans < 4; trans++)
                for (int how = PACKED; how <= INTERLEAVED; how++)
                    for (int rest = 0; rest < 8; rest++) {
                        int batch = how == INTERLEAVED ? 3 : how == PADDED ? 2 : 1;
                        static const float betas[] = {0, 1, 0, 0.5f};
                        one_product(all[kind], sizes[size], trans & 1, trans & 2, batch, (arrangement)how, rest & 1,
                                    rest & 4 ? 0.125f : 1, betas[rest >> 1], rest & 2);
                    }
}

/* With beta 0, NaN in C goes nowhere; a NaN in A reaches its row; C's leading dimension 0 repeats one column. */
static void special_values(void)
{
    matrix a = make(CUDA_R_32F, 4, 3, 1, PACKED), b = make(CUDA_R_32F, 3, 5, 1, PACKED);
    matrix d = make(CUDA_R_32F, 4, 5, 1, PACKED), c = make(CUDA_R_32F, 4, 5, 1, PACKED);
    MUST(cudaMemset(c.device, 0xff, 4 * c.elements));
    call product = prepare(&a, &b, &c, &d, false, false, CUBLAS_COMPUTE_32F, NULL);
    MUST(ask(&product));
    MUST(multiply(&product));
    MUST(cudaStreamSynchronize(stream));
    float *got = download(&d);
    CHECK(isfinite(got[0]) && isfinite(got[19]), "beta 0 reads C");
    free(got);

    float nan_value = NAN;
    MUST(cudaMemcpy((float *)a.device + 1, &nan_value, 4, cudaMemcpyHostToDevice)); /* row 1, k 0 */
    MUST(multiply(&product));
    MUST(cudaStreamSynchronize(stream));
    got = download(&d);
    for (int i = 0; i < 20; i++) CHECK(isnan(got[i]) == (i % 4 == 1), "NaN at element %d: %g", i, got[i]);
    free(got);
    finish(&product);

    matrix column = make(CUDA_R_32F, 4, 5, 1, PACKED);
    column.ld = 0;
    matrix left = make(CUDA_R_32F, 4, 3, 1, PACKED);
    product = prepare(&left, &b, &column, &d, false, false, CUBLAS_COMPUTE_32F, NULL);
    product.alpha = 0, product.beta = 1;
    MUST(ask(&product));
    MUST(multiply(&product));
    MUST(cudaStreamSynchronize(stream));
    got = download(&d);
    for (int i = 0; i < 20; i++) CHECK(got[i] == column.host[i % 4], "broadcast C at %d", i);
    free(got);
    finish(&product);
    drop(&a), drop(&b), drop(&c), drop(&d), drop(&column), drop(&left);
}

/* --- refusals and misuse ------------------------------------------------------------------------------------------ */

/* A sound product to spoil, of 8 x 8 x 8 and of the type asked for. */
static matrix sa, sb, sc, sd, sbias;
static call sound;

static void prepare_sound(cudaDataType in, cudaDataType out, cublasComputeType_t compute)
{
    matrix *all[] = {&sa, &sb, &sc, &sd, &sbias};
    for (int i = 0; i < 5; i++) drop(all[i]); /* of the one before */
    sa = make(in, 8, 8, 1, PACKED), sb = make(in, 8, 8, 1, PACKED);
    sc = make(out, 8, 8, 1, PACKED), sd = make(out, 8, 8, 1, PACKED), sbias = make(out, 8, 1, 1, PACKED);
    sound = prepare(&sa, &sb, &sc, &sd, false, false, compute, sbias.device);
}

#define REFUSED(status, what)                                                                                          \
    do {                                                                                                               \
        cublasStatus_t status_ = ask(&sound);                                                                          \
        CHECK(status_ == CUBLAS_STATUS_##status, "%s: %d", what, (int)status_);                                        \
        finish(&sound);                                                                                                \
    } while (0)

static void set_layout(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, int64_t value,
                       size_t bytes)
{
    MUST(cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, bytes)); /* little endian */
}

static void refusals(void)
{
    const cudaDataType f32 = CUDA_R_32F, bf16 = CUDA_R_16BF;
    const cublasComputeType_t exact = CUBLAS_COMPUTE_32F;
    prepare_sound(f32, f32, exact);
    REFUSED(SUCCESS, "the sound one");
    prepare_sound(f32, f32, exact), sound.handle = NULL;
    REFUSED(NOT_INITIALIZED, "handle NULL");
    prepare_sound(f32, f32, exact);
    CHECK(cublasLtMatmulAlgoGetHeuristic(handle, NULL, sound.a, sound.b, sound.c, sound.d, sound.preference, 1,
                                         &sound.result, &(int){0}) == CUBLAS_STATUS_INVALID_VALUE,
          "operation NULL");
    CHECK(cublasLtMatmulAlgoGetHeuristic(handle, sound.op, sound.a, NULL, sound.c, sound.d, sound.preference, 1,
                                         &sound.result, &(int){0}) == CUBLAS_STATUS_INVALID_VALUE,
          "layout NULL");
    CHECK(cublasLtMatmulAlgoGetHeuristic(handle, sound.op, sound.a, sound.b, sound.c, sound.d, sound.preference, 0,
                                         &sound.result, &(int){0}) == CUBLAS_STATUS_INVALID_VALUE,
          "no algorithm wanted");
    finish(&sound);

    prepare_sound(f32, f32, exact), set_layout(sound.b, CUBLASLT_MATRIX_LAYOUT_ROWS, 7, 8);
    REFUSED(INVALID_VALUE, "inner dimensions differ");
    prepare_sound(f32, f32, exact), set_layout(sound.d, CUBLASLT_MATRIX_LAYOUT_COLS, 7, 8);
    REFUSED(INVALID_VALUE, "D has other columns");
    prepare_sound(f32, f32, exact), set_layout(sound.c, CUBLASLT_MATRIX_LAYOUT_COLS, 7, 8);
    REFUSED(INVALID_VALUE, "C has other columns");
    prepare_sound(f32, f32, exact), set_layout(sound.a, CUBLASLT_MATRIX_LAYOUT_LD, 7, 8);
    REFUSED(INVALID_VALUE, "leading dimension of A too small");
    prepare_sound(f32, f32, exact), set_layout(sound.a, CUBLASLT_MATRIX_LAYOUT_ROWS, 0, 8);
    REFUSED(INVALID_VALUE, "no rows");
    prepare_sound(f32, f32, exact), set_layout(sound.a, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 2, 4);
    REFUSED(INVALID_VALUE, "batches differ");
    prepare_sound(f32, f32, exact), set_layout(sound.a, CUBLASLT_MATRIX_LAYOUT_ORDER, CUBLASLT_ORDER_ROW, 4);
    REFUSED(NOT_SUPPORTED, "row order");

    prepare_sound(f32, bf16, exact);
    REFUSED(NOT_SUPPORTED, "fp32 in, bf16 out");
    prepare_sound(bf16, f32, CUBLAS_COMPUTE_32F_FAST_TF32);
    REFUSED(NOT_SUPPORTED, "TF32 of bf16");
    prepare_sound(f32, f32, CUBLAS_COMPUTE_64F);
    REFUSED(NOT_SUPPORTED, "fp64 arithmetic");
    prepare_sound(f32, f32, exact), set_layout(sound.b, CUBLASLT_MATRIX_LAYOUT_TYPE, CUDA_R_16BF, 4);
    REFUSED(NOT_SUPPORTED, "A fp32, B bf16");
    prepare_sound(bf16, f32, exact), set_layout(sound.c, CUBLASLT_MATRIX_LAYOUT_TYPE, CUDA_R_16BF, 4);
    REFUSED(NOT_SUPPORTED, "C bf16, D fp32");
    prepare_sound(f32, f32, exact), set_layout(sound.a, CUBLASLT_MATRIX_LAYOUT_TYPE, CUDA_R_16F, 4);
    REFUSED(NOT_SUPPORTED, "fp16");

    int32_t type = CUDA_R_32F;
    prepare_sound(bf16, bf16, exact);
    SET_OP(&sound, BIAS_DATA_TYPE, type);
    REFUSED(NOT_SUPPORTED, "bf16 with a bias of fp32");
    prepare_sound(bf16, f32, exact);
    SET_OP(&sound, BIAS_DATA_TYPE, type);
    REFUSED(SUCCESS, "fp32 out with a bias of fp32");
    prepare_sound(f32, f32, exact);
    uint32_t gelu = CUBLASLT_EPILOGUE_GELU_BIAS;
    SET_OP(&sound, EPILOGUE, gelu);
    REFUSED(NOT_SUPPORTED, "GELU");
    prepare_sound(f32, f32, exact);
    int32_t on_device = CUBLASLT_POINTER_MODE_DEVICE;
    SET_OP(&sound, POINTER_MODE, on_device);
    REFUSED(NOT_SUPPORTED, "scalars on the device");
    prepare_sound(f32, f32, exact);
    SET_OP(&sound, A_SCALE_POINTER, sa.device);
    REFUSED(NOT_SUPPORTED, "a scale");
    static const uint32_t odd_alignments[] = {0, 24};
    for (int i = 0; i < 2; i++) {
        prepare_sound(f32, f32, exact);
        SET_PREFERENCE(&sound, MIN_ALIGNMENT_C_BYTES, odd_alignments[i]);
        REFUSED(INVALID_VALUE, "an alignment that is not a power of two");
    }

    prepare_sound(f32, f32, exact);
    MUST(ask(&sound));
    CHECK(sound.result.workspaceSize == 256, "workspace of 8 x 8: %zu", sound.result.workspaceSize);
    call bad = sound;
    bad.workspace_bytes = 128;
    CHECK(multiply(&bad) == CUBLAS_STATUS_INVALID_VALUE, "too little workspace");
    bad = sound, bad.workspace = NULL;
    CHECK(multiply(&bad) == CUBLAS_STATUS_INVALID_VALUE, "no workspace");
    bad = sound, bad.a_data = NULL;
    CHECK(multiply(&bad) == CUBLAS_STATUS_INVALID_VALUE, "A NULL");
    const void *nothing = NULL;
    SET_OP(&sound, BIAS_POINTER, nothing);
    CHECK(multiply(&sound) == CUBLAS_STATUS_INVALID_VALUE, "bias NULL");
    finish(&sound);

    cublasLtHandle_t gone;
    MUST(cublasLtCreate(&gone));
    MUST(cublasLtDestroy(gone));
    CHECK(cublasLtDestroy(gone) == CUBLAS_STATUS_NOT_INITIALIZED, "destroyed twice");
    CHECK(cublasLtCreate(NULL) == CUBLAS_STATUS_INVALID_VALUE, "create NULL");
}

static void ready(void)
{
    prepare_sound(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F);
    MUST(ask(&sound));
}

static void go(void)
{
    MUST(multiply(&sound));
    MUST(cudaStreamSynchronize(stream));
}

/* A sound product, one thing spoilt, and run. */
#define SPOILED(name, ...)                                                                                             \
    static void name(void)                                                                                             \
    {                                                                                                                  \
        ready();                                                                                                       \
        __VA_ARGS__;                                                                                                   \
        go();                                                                                                          \
    }
SPOILED(misaligned, sound.a_data = (const char *)sound.a_data + 64) /* the default promise is 256 */
SPOILED(workspace_misaligned, sound.workspace = (char *)workspace + 16)
SPOILED(workspace_is_d, sound.workspace = sd.device)
SPOILED(workspace_on_host, sound.workspace = aligned_alloc(256, workspace_bytes))
SPOILED(d_is_a, sound.d_data = sa.device, sound.c_data = sa.device)
SPOILED(d_overlaps_b, sound.d_data = sb.device)
SPOILED(in_place_other_layout, set_layout(sound.c, CUBLASLT_MATRIX_LAYOUT_LD, 9, 8); MUST(ask(&sound));
        sound.c_data = sound.d_data)
SPOILED(bias_misaligned, const void *bias = (const char *)sbias.device + 4; SET_OP(&sound, BIAS_POINTER, bias))
SPOILED(other_compute, int32_t compute = CUBLAS_COMPUTE_32F_FAST_TF32; SET_OP(&sound, COMPUTE_TYPE, compute))
SPOILED(no_algorithm, memset(&sound.result.algo, 0x5a, sizeof sound.result.algo))
SPOILED(host_memory, sound.b_data = aligned_alloc(256, 1024))

static void misaligned_d(void)
{
    uint32_t promised = 16;
    prepare_sound(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F);
    SET_PREFERENCE(&sound, MIN_ALIGNMENT_D_BYTES, promised);
    MUST(ask(&sound));
    sound.d_data = (char *)sound.d_data + 8;
    go();
}

static void c_overlaps_d(void)
{
    void *both = device_copy(NULL, 4096);
    matrix wide = make(CUDA_R_32F, 16, 8, 1, PACKED), narrow = make(CUDA_R_32F, 16, 8, 1, PACKED);
    matrix right = make(CUDA_R_32F, 8, 8, 1, PACKED), left = make(CUDA_R_32F, 16, 8, 1, PACKED);
    sound = prepare(&left, &right, &wide, &narrow, false, false, CUBLAS_COMPUTE_32F, NULL);
    MUST(ask(&sound));
    sound.c_data = both, sound.d_data = (char *)both + 256, sound.beta = 1;
    go();
}

static void other_shape(void)
{
    ready();
    cublasLtMatmulHeuristicResult_t kept = sound.result;
    matrix wide = make(CUDA_R_32F, 8, 16, 1, PACKED), d = make(CUDA_R_32F, 8, 16, 1, PACKED);
    sound = prepare(&sa, &wide, &d, &d, false, false, CUBLAS_COMPUTE_32F, NULL);
    sound.result = kept;
    go();
}

static void batch_overlaps(void)
{
    matrix a = make(CUDA_R_32F, 8, 8, 2, PACKED), b = make(CUDA_R_32F, 8, 8, 2, PACKED);
    matrix d = make(CUDA_R_32F, 8, 8, 2, PACKED);
    d.stride = 32;
    sound = prepare(&a, &b, &d, &d, false, false, CUBLAS_COMPUTE_32F, NULL);
    MUST(ask(&sound));
}

static void freed_memory(void)
{
    ready();
    MUST(multiply(&sound));
    MUST(cudaStreamSynchronize(stream));
    MUST(cudaFree(sb.device));
    go();
}

static void beyond_allocation(void)
{
    void *small = device_copy(NULL, 200);
    ready(), sound.d_data = small;
    go();
}

static void shared_workspace(void)
{
    ready();
    cudaStream_t other;
    MUST(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    MUST(multiply(&sound));
    sound.stream = other;
    MUST(multiply(&sound));
}

static void misuse(void)
{
    expect_death("A misaligned", misaligned, "A at");
    expect_death("D misaligned", misaligned_d, "promised an alignment of 16");
    expect_death("workspace misaligned", workspace_misaligned, "the workspace at");
    expect_death("workspace is D", workspace_is_d, "the workspace overlaps");
    expect_death("workspace on the host", workspace_on_host, "==cudaemu==");
    expect_death("D is A", d_is_a, "D overlaps A");
    expect_death("D overlaps B", d_overlaps_b, "D overlaps B");
    expect_death("D overlaps C", c_overlaps_d, "D overlaps C");
    expect_death("in place, other layout", in_place_other_layout, "C == D with layouts that differ");
    expect_death("bias misaligned", bias_misaligned, "bias at");
    expect_death("algorithm of another shape", other_shape, "another problem: m 8 n 8 k 8, here m 8 n 16");
    expect_death("algorithm of other arithmetic", other_compute, "another problem");
    expect_death("algorithm out of nowhere", no_algorithm, "does not come from the heuristic");
    expect_death("batch overlaps", batch_overlaps, "D's batch overlap");
    expect_death("host memory", host_memory, "==cudaemu==");
    expect_death("freed memory", freed_memory, "==cudaemu==");
    expect_death("beyond the allocation", beyond_allocation, "==cudaemu==");
    expect_death("workspace of two streams", shared_workspace, "two streams share the workspace");
}

/* Interleaved slices of one array, as Q, K and V in [T, 3 C], are not an overlap. */
static void slices(void)
{
    enum { C = 8, T = 6 };
    matrix qkv = make(CUDA_R_32F, 3 * C, T, 1, PACKED);
    matrix x = qkv, y = qkv, weight = make(CUDA_R_32F, C, C, 1, PACKED);
    x.rows = y.rows = C;
    call product = prepare(&weight, &x, &y, &y, false, false, CUBLAS_COMPUTE_32F, NULL);
    uint32_t promised = 16;
    SET_PREFERENCE(&product, MIN_ALIGNMENT_C_BYTES, promised);
    SET_PREFERENCE(&product, MIN_ALIGNMENT_D_BYTES, promised);
    product.c_data = product.d_data = (float *)y.device + C;
    MUST(ask(&product));
    MUST(multiply(&product));
    MUST(cudaStreamSynchronize(stream));
    float *got = download(&qkv);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < C; i++) {
            double sum = 0;
            for (int k = 0; k < C; k++) sum += (double)weight.host[k * C + i] * qkv.host[t * 3 * C + k];
            CHECK(fabs(got[t * 3 * C + C + i] - sum) < 1e-5, "slice %d %d", t, i);
            CHECK(got[t * 3 * C + i] == qkv.host[t * 3 * C + i], "the input slice changed");
        }
    free(got);
    finish(&product);
    drop(&qkv), drop(&weight);
}

void test_products(void)
{
    MUST(cublasLtCreate(&handle));
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    workspace = device_copy(NULL, workspace_bytes);
    all_products();
    special_values();
    slices();
    set_quiet(true);
    refusals();
    set_quiet(false);
    misuse();
    MUST(cublasLtDestroy(handle));
}
