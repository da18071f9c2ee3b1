/* What the tests of the operation table share: guarded buffers, ragged batches, tolerances, and a runner that takes
 * one case through every backend under test (device.h): on the CPU every instruction set of this processor and 1, 2
 * and 3 threads, on CUDA float and bf16.
 *
 * A test works on host memory. What it hands to an operation is the running backend's copy of it: f32(), act(),
 * device(), ragged_of(). Copies exist while a case runs. */
#ifndef FB3_TESTS_BACKEND_SUPPORT_H
#define FB3_TESTS_BACKEND_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device.h"

typedef struct mirror mirror; /* the copy in the running backend's memory, with sentinels on both sides */

/* An array of floats. `start` is what an operation finds in it when it is an output: NaN for one that overwrites.
 * Activations are bf16 in the copy where the backend works in bf16; their values are representable in bf16 from the
 * start, so that every backend is given the same numbers. */
typedef struct buffer {
    float *data, *start;
    bool is_act;
    mirror *mirror;
    int64_t n;
} buffer;

buffer buffer_random(int64_t n); /* N(0, 1)-like, different every time, the same every run */
buffer buffer_output(int64_t n); /* starts as NaN */
buffer buffer_random_act(int64_t n);
buffer buffer_output_act(int64_t n);
buffer buffer_copy(const buffer *from);         /* starts as another's contents */
void buffer_scale(buffer *x, float a, float b); /* a * x + b, contents and start */
/* The copy starts `elements` past a boundary of 64 bytes, for operations that get parts of arrays. */
void buffer_shift(buffer *x, int elements);
void buffer_free(buffer *x);
double *doubles(const buffer *x); /* the contents in double, to be freed */
double *starts(const buffer *x);  /* the same of `start` */
double *zeros(int64_t n);

/* Anything else that an operation is given by pointer: ids, counters, sums in double, segments. An operation that
 * writes to it finds the contents it was made with. */
typedef struct array {
    void *host;
    mirror *mirror;
} array;
array array_make(int64_t n, size_t element, const void *contents); /* NULL: zeros */
void array_free(array *x);

/* What an operation of the running backend takes. */
float *f32(const buffer *x);
void *act(const buffer *x);
void *device(const array *x);

/* The running (or last) backend's type of activations, and a value rounded to it. */
fb3_dtype act_type(void);
float as_act(float x);
/* It runs attention by our own kernels on CUDA. */
bool fused_on_cuda(void);
/* For messages. */
const char *backend_name(void);

/* max |got - want| <= tolerance * max |want|, and everything finite. want all 0: got all 0. Where the running backend
 * works in bf16 the tolerance of activations is at least BF16_TOLERANCE: a rounding of the result, 2^-9, and one inside
 * (of a probability, a sum that is kept). */
#define BF16_TOLERANCE 6e-3
void expect_close(const char *what, const buffer *got, const double *want, double tolerance);
/* The same over columns first .. first + count - 1 of rows of `width`, so that small parts are held to their own size.
 */
void expect_close_columns(const char *what, const buffer *got, const double *want, int width, int first, int count,
                          double tolerance);

/* The ragged layout of sequences of these lengths; the samples are distinct. */
typedef struct layout {
    fb3_ragged ragged;              /* T, B, max_len; for operations through ragged_of() */
    int32_t *seq_start, *token_seq; /* on the host */
    uint32_t *sample;
    array arrays[3];
} layout;
layout layout_make(const int *lengths, int B);
const fb3_ragged *ragged_of(layout *l);
void layout_free(layout *l);

/* Dropout as fb3_dropout says, from fb3_philox4x32 alone: 0 or 1/(1-p) for element e of a sample. */
double reference_keep(const fb3_dropout *drop, uint32_t sample, uint64_t e);
/* The same for column c of row t of a row tensor. */
double reference_keep_row(const fb3_dropout *drop, const layout *l, int t, int width, int c);
extern const fb3_dropout no_dropout, some_dropout; /* p = 0, p = 0.25 */

/* Runs `run` on every backend under test, outputs set back to their start before each run. Sentinels must live, arrays
 * that are not outputs must keep their bits, and neither threads nor a second run may change a bit; `check` (may be
 * NULL) is called once per backend, with the outputs on the host. */
typedef struct op_case {
    fb3_status (*run)(fb3_backend *be, void *context);
    void (*check)(void *context);
    void *context;
    buffer *outputs[10]; /* up to the first NULL */
    array *results[4];   /* outputs too, up to the first NULL */
    fb3_limits limits;   /* for `reserve`, on devices with memory of their own */
    bool attention;      /* once for each attention_impl that the device has */
    /* NULL, or the words by which the running backend must refuse the case (FB3_INPUT); it gives NULL where the
     * backend must not */
    const char *(*refusal)(void *context);
} op_case;
void run_case(const op_case *c);

/* For tests that call operations by themselves: gives everything that lives its copy, uploads what the test changed
 * since, and takes the copies away after a look at the sentinels. */
void attach(fb3_backend *be);
void refresh(const buffer *x);
void detach(void);

/* Compares `gradient` (d sum(weights * y) / dx of a double reference) with central differences of its forward, at up
 * to 40 elements of x. */
typedef void (*reference_forward)(double *y, void *context);
void expect_gradient(const char *what, reference_forward forward, void *context, double *x, int64_t x_count,
                     const double *gradient, const double *weights, int64_t y_count);

#endif
