/* The shims' matrix product and small helpers. Deterministic: every element of the product is one chain of additions in
 * the order of k. Fast enough for the emulated training runs: operands are packed into panels and a tile of the product
 * is kept in registers. */
#include "shim.h"

#include <math.h>
#include <stdarg.h>

static void say(const char *library, const char *format, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    fprintf(stderr, "==%s shim== %s\n", library, text); /* one write: lines of several ranks stay whole */
    fflush(stderr);
}

void shim_misuse(const char *library, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(library, format, args);
    va_end(args);
    abort();
}

void shim_note(const char *library, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(library, format, args);
    va_end(args);
}

void *shim_alloc(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) shim_misuse("memory", "no memory on the host for %zu bytes", bytes);
    return memory;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float shim_load(const void *data, shim_type type, int64_t index)
{
    if (type == SHIM_F32) return ((const float *)data)[index];
    return from_bits((uint32_t)((const uint16_t *)data)[index] << 16);
}

void shim_store(void *data, shim_type type, int64_t index, float value)
{
    if (type == SHIM_F32) {
        ((float *)data)[index] = value;
        return;
    }
    uint32_t bits = to_bits(value);
    /* rounding could carry a NaN's mantissa over into infinity, so a NaN is only cut, and kept quiet */
    bits = isnan(value) ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
    ((uint16_t *)data)[index] = (uint16_t)(bits >> 16);
}

/* To 10 mantissa bits, to nearest with ties away from zero: PTX's cvt.rna.tf32.f32. That cuBLAS rounds its inputs this
 * way is a guess; it may as well cut. */
static float round_tf32(float value)
{
    uint32_t bits = to_bits(value);
    if ((bits & 0x7f800000) == 0x7f800000) return value; /* infinite or NaN */
    return from_bits((bits + 0x1000) & ~UINT32_C(0x1fff));
}

/* The widest vector that registers hold: 12 of them are sums, the rest operands. Does not change the result's bits. */
#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { PANEL_ROWS = 2 * LANES, PANEL_COLS = 6 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* panel[kk * width + i] = x(first + i, kk) for `width` rows; rows beyond `rows` are zeros. For the right operand,
 * rows are its columns: its strides come swapped. */
static void pack(float *panel, int width, const shim_matrix *x, int first, int rows, int k, bool tf32)
{
    int present = rows - first < width ? rows - first : width;
    if (present < width) memset(panel, 0, sizeof(float) * (size_t)width * (size_t)k);
    for (int i = 0; i < present; i++) {
        int64_t at = (first + i) * x->row_stride;
        for (int kk = 0; kk < k; kk++, at += x->col_stride) {
            float value = shim_load(x->data, x->type, at);
            panel[(size_t)kk * (size_t)width + (size_t)i] = tf32 ? round_tf32(value) : value;
        }
    }
}

/* One tile of the product: PANEL_ROWS x PANEL_COLS elements in registers. */
static void tile(float *out, int64_t ld, int rows, int cols, const float *a, const float *b, int k)
{
    lanes sum[PANEL_COLS][2] = {0};
    for (int kk = 0; kk < k; kk++, a += PANEL_ROWS, b += PANEL_COLS) {
        lanes low, high;
        memcpy(&low, a, sizeof low);
        memcpy(&high, a + LANES, sizeof high);
        for (int j = 0; j < PANEL_COLS; j++) {
            sum[j][0] += low * b[j];
            sum[j][1] += high * b[j];
        }
    }
    for (int j = 0; j < cols; j++) memcpy(out + j * ld, sum[j], sizeof(float) * (size_t)rows);
}

void shim_gemm(float *out, int m, int n, int k, const shim_matrix *a, const shim_matrix *b, bool tf32)
{
    size_t panels = ((size_t)n + PANEL_COLS - 1) / PANEL_COLS, panel_floats = (size_t)PANEL_COLS * (size_t)k;
    float *right = shim_alloc(sizeof(float) * panels * panel_floats);
    float *left = shim_alloc(sizeof(float) * PANEL_ROWS * (size_t)k);
    shim_matrix columns = {b->data, b->type, b->col_stride, b->row_stride};
    for (size_t p = 0; p < panels; p++)
        pack(right + p * panel_floats, PANEL_COLS, &columns, (int)p * PANEL_COLS, n, k, tf32);
    for (int i = 0; i < m; i += PANEL_ROWS) {
        pack(left, PANEL_ROWS, a, i, m, k, tf32);
        int rows = m - i < PANEL_ROWS ? m - i : PANEL_ROWS;
        for (size_t p = 0; p < panels; p++) {
            int j = (int)p * PANEL_COLS, cols = n - j < PANEL_COLS ? n - j : PANEL_COLS;
            tile(out + i + (int64_t)j * m, m, rows, cols, left, right + p * panel_floats, k);
        }
    }
    free(left);
    free(right);
}
