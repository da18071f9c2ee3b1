/* Matrix products by cuBLASLt. The library takes column-major matrices: a row-major [R,C] array is a column-major [C,R]
 * one, so c = a b becomes c^T = b^T a^T with the operands exchanged and nothing moved.
 *
 * The algorithm is the first one that the library's heuristic offers for a shape, never chosen by timing. Shapes repeat
 * in every layer of a step, so plans are kept; ragged batches bring new shapes with every step, so old plans are thrown
 * out. All products use one workspace, in stream order. */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

enum { PLANS = 256, WORKSPACE_BYTES = 32 << 20 /* what NVIDIA advises for Hopper */, ALIGNMENT_MAX = 256 };

/* What a plan depends on: shape, strides, the alignment of the pointers, kinds. */
typedef struct plan_key {
    int64_t of[18];
} plan_key;

typedef struct plan {
    plan_key key;
    bool made;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} plan;

struct fb3_cuda_products {
    cublasLtHandle_t handle;
    void *workspace;
    cublasLtMatmulPreference_t preference;
    plan plan[PLANS]; /* by the hash of the key; a newcomer replaces whoever is there */
};

fb3_status fb3_products_open(fb3_backend *be)
{
    fb3_cuda_products *products = calloc(1, sizeof *products);
    FB3_REQUIRE(products, FB3_FAILED, "out of memory for the plans of matrix products");
    fb3_cuda_of(be)->products = products;
    const size_t workspace = WORKSPACE_BYTES;
    FB3_CUBLAS(cublasLtCreate(&products->handle));
    FB3_CUBLAS(cublasLtMatmulPreferenceCreate(&products->preference));
    FB3_CUBLAS(cublasLtMatmulPreferenceSetAttribute(products->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &workspace, sizeof workspace));
    return fb3_alloc_cuda(be, &products->workspace, workspace);
}

static void plan_free(plan *p)
{
    if (p->operation) (void)cublasLtMatmulDescDestroy(p->operation);
    if (p->a) (void)cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) (void)cublasLtMatrixLayoutDestroy(p->b);
    if (p->c) (void)cublasLtMatrixLayoutDestroy(p->c);
    *p = (plan){0};
}

void fb3_products_close(fb3_backend *be)
{
    fb3_cuda_products *products = fb3_cuda_of(be)->products;
    if (!products) return;
    for (int i = 0; i < PLANS; i++) plan_free(&products->plan[i]);
    if (products->preference) (void)cublasLtMatmulPreferenceDestroy(products->preference);
    if (products->handle) (void)cublasLtDestroy(products->handle);
    fb3_free_cuda(be, products->workspace);
    free(products);
    fb3_cuda_of(be)->products = NULL;
}

static uint32_t alignment_of(const void *pointer)
{
    uintptr_t lowest_bit = (uintptr_t)pointer & -(uintptr_t)pointer;
    return lowest_bit == 0 || lowest_bit > ALIGNMENT_MAX ? ALIGNMENT_MAX : (uint32_t)lowest_bit;
}

static int batch_of(const fb3_product *p)
{
    return p->batch > 1 ? p->batch : 1;
}

static plan_key key_of(const fb3_product *p)
{
    bool batch = batch_of(p) > 1;
    return (plan_key){{p->M, p->N, p->K, batch_of(p), p->lda, p->ldb, p->ldc, batch ? p->stride_a : 0,
                       batch ? p->stride_b : 0, batch ? p->stride_c : 0, alignment_of(p->a), alignment_of(p->b),
                       alignment_of(p->c), p->trans_a, p->trans_b, p->accumulate, p->bias != NULL, (int)p->c_type}};
}

/* FNV-1a. */
static plan *place_of(fb3_cuda_products *products, const plan_key *key)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof key->of; i++) hash = (hash ^ ((const unsigned char *)key->of)[i]) * 16777619u;
    return &products->plan[hash % PLANS];
}

static cudaDataType_t type_of(fb3_dtype type)
{
    return type == FB3_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A row-major [rows, columns] array. */
static fb3_status make_layout(cublasLtMatrixLayout_t *layout, fb3_dtype type, int rows, int columns, int64_t ld,
                              int batch, int64_t stride)
{
    const int32_t count = batch;
    FB3_CUBLAS(cublasLtMatrixLayoutCreate(layout, type_of(type), (uint64_t)columns, (uint64_t)rows, ld));
    if (batch == 1) return FB3_OK;
    FB3_CUBLAS(cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    FB3_CUBLAS(
        cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
    return FB3_OK;
}

static fb3_status make_operation(fb3_backend *be, plan *p, const fb3_product *product)
{
    const cublasOperation_t op_a = product->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = product->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    bool tf32 = be->act == FB3_F32 && fb3_cuda_of(be)->tf32;
    FB3_CUBLAS(
        cublasLtMatmulDescCreate(&p->operation, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    FB3_CUBLAS(cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &op_b, sizeof op_b));
    FB3_CUBLAS(cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSB, &op_a, sizeof op_a));
    if (!product->bias) return FB3_OK;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    FB3_CUBLAS(cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    return FB3_OK;
}

static fb3_status set_bias(plan *p, const void *bias)
{
    if (bias)
        FB3_CUBLAS(cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    return FB3_OK;
}

static fb3_status prefer_alignment(fb3_cuda_products *products, cublasLtMatmulPreferenceAttributes_t which,
                                   uint32_t bytes)
{
    FB3_CUBLAS(cublasLtMatmulPreferenceSetAttribute(products->preference, which, &bytes, sizeof bytes));
    return FB3_OK;
}

static fb3_status make_plan(fb3_backend *be, plan *p, const fb3_product *product)
{
    fb3_cuda_products *products = fb3_cuda_of(be)->products;
    const int M = product->M, N = product->N, K = product->K, batch = batch_of(product);
    const bool ta = product->trans_a, tb = product->trans_b;
    const uint32_t align_a = alignment_of(product->a), align_b = alignment_of(product->b);
    const uint32_t align_c = alignment_of(product->c);
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    FB3_TRY(make_operation(be, p, product));
    FB3_TRY(set_bias(p, product->bias)); /* the heuristic looks at its alignment */
    FB3_TRY(make_layout(&p->a, be->act, ta ? K : M, ta ? M : K, product->lda, batch, product->stride_a));
    FB3_TRY(make_layout(&p->b, be->act, tb ? N : K, tb ? K : N, product->ldb, batch, product->stride_b));
    FB3_TRY(make_layout(&p->c, product->c_type, M, N, product->ldc, batch, product->stride_c));
    FB3_TRY(prefer_alignment(products, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align_b));
    FB3_TRY(prefer_alignment(products, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align_a));
    FB3_TRY(prefer_alignment(products, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_c));
    FB3_TRY(prefer_alignment(products, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_c));
    FB3_CUBLAS(cublasLtMatmulAlgoGetHeuristic(products->handle, p->operation, p->b, p->a, p->c, p->c,
                                              products->preference, 1, &found, &count));
    FB3_REQUIRE(count == 1 && found.state == CUBLAS_STATUS_SUCCESS, FB3_FAILED,
                "cuBLASLt has no algorithm for a product [%d, %d] x [%d, %d]", M, K, K, N);
    p->algorithm = found.algo;
    p->made = true;
    return FB3_OK;
}

static fb3_status plan_for(fb3_backend *be, const fb3_product *product, plan **chosen)
{
    plan_key key = key_of(product);
    plan *p = place_of(fb3_cuda_of(be)->products, &key);
    *chosen = p;
    if (p->made && memcmp(p->key.of, key.of, sizeof key.of) == 0) return set_bias(p, product->bias);
    plan_free(p);
    p->key = key;
    fb3_status status = make_plan(be, p, product);
    if (status != FB3_OK) plan_free(p);
    return status;
}

fb3_status fb3_product_cuda(fb3_backend *be, const fb3_product *product)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    const float one = 1.0f, beta = product->accumulate ? 1.0f : 0.0f;
    plan *p;
    if (product->M == 0 || product->N == 0) return FB3_OK;
    FB3_REQUIRE(product->K > 0, FB3_FAILED, "a matrix product over an inner dimension of 0");
    FB3_TRY(plan_for(be, product, &p));
    FB3_CUBLAS(cublasLtMatmul(cuda->products->handle, p->operation, &one, product->b, p->b, product->a, p->a, &beta,
                              product->c, p->c, product->c, p->c, &p->algorithm, cuda->products->workspace,
                              WORKSPACE_BYTES, cuda->compute));
    return FB3_OK;
}
