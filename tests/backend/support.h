/* What the tests of the operation table share: guarded buffers, ragged batches, tolerances, and a runner that takes
 * one case through every instruction set of this processor and 1, 2 and 3 threads. */
#ifndef FB3_TESTS_BACKEND_SUPPORT_H
#define FB3_TESTS_BACKEND_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fb3/backend.h"

/* A float array with sentinels on both sides. `start` is what an operation finds in it: NaN for one that overwrites.
 * A buffer of activations has a bf16 twin for the tables that work in bf16: run_case() copies there and back. Its
 * values are representable in bf16 from the start, so that every table is given the same numbers. */
typedef struct buffer {
    float *data, *start, *memory;
    struct twin *twin; /* NULL: always float */
    int64_t n;
} buffer;

buffer buffer_random(int64_t n); /* N(0, 1)-like, different every time, the same every run */
buffer buffer_output(int64_t n); /* starts as NaN */
buffer buffer_random_act(int64_t n);
buffer buffer_output_act(int64_t n);
/* What an operation of the running table takes for a buffer of activations. */
void *act(const buffer *x);
/* The type of the running (or last run) table, and a value rounded to it. */
fb3_dtype act_type(void);
float as_act(float x);
buffer buffer_copy(const buffer *from);         /* starts as another's contents */
void buffer_scale(buffer *x, float a, float b); /* a * x + b, contents and start */
void buffer_free(buffer *x);
double *doubles(const buffer *x); /* the contents in double, to be freed */
double *zeros(int64_t n);

/* max |got - want| <= tolerance * max |want|, and everything finite. want all 0: got all 0. Where the running table
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
    fb3_ragged ragged;
    int32_t *seq_start, *token_seq;
    uint32_t *sample;
} layout;
layout layout_make(const int *lengths, int B);
void layout_free(layout *l);

/* Dropout as fb3_dropout says, from fb3_philox4x32 alone: 0 or 1/(1-p) for element e of a sample. */
double reference_keep(const fb3_dropout *drop, uint32_t sample, uint64_t e);
/* The same for column c of row t of a row tensor. */
double reference_keep_row(const fb3_dropout *drop, const layout *l, int t, int width, int c);
extern const fb3_dropout no_dropout, some_dropout; /* p = 0, p = 0.25 */

/* Runs `run` on a fresh backend for every table and thread count, outputs set back to their start before
 * each. Sentinels must live, threads must not change a bit; `check` (may be NULL) is called once per table.
 */
typedef struct op_case {
    fb3_status (*run)(fb3_backend *be, void *context);
    void (*check)(void *context);
    void *context;
    buffer *outputs[10]; /* up to the first NULL */
} op_case;
void run_case(const op_case *c);

/* Compares `gradient` (d sum(weights * y) / dx of a double reference) with central differences of its forward, at up
 * to 40 elements of x. */
typedef void (*reference_forward)(double *y, void *context);
void expect_gradient(const char *what, reference_forward forward, void *context, double *x, int64_t x_count,
                     const double *gradient, const double *weights, int64_t y_count);

#endif
