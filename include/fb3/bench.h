/* fb3-dist bench: measured speed of the parts, each against what the machine can do. */
#ifndef FB3_BENCH_H
#define FB3_BENCH_H

#include "fb3/observer.h"
#include "fb3/train.h"

/* The verb. Collective; the root prints. */
fb3_status fb3_bench(fb3_session *session);

/* --- breakdown.c: where a step's time goes ------------------------------------------------------------------------ */

enum { FB3_BENCH_OPS = 64 };

typedef struct fb3_op_total {
    const char *op;
    int calls;
    double seconds;
    fb3_work work;
} fb3_op_total;

/* Sums over the operations of everything that runs while it is on. */
typedef struct fb3_breakdown {
    fb3_op_total total[FB3_BENCH_OPS]; /* by falling time after _end */
    int count;
    double begin; /* of the operation that runs */
} fb3_breakdown;
fb3_status fb3_breakdown_begin(fb3_breakdown *breakdown, fb3_backend *be);
void fb3_breakdown_end(fb3_breakdown *breakdown, fb3_backend *be);

/* --- report.c ----------------------------------------------------------------------------------------------------- */

typedef struct fb3_bench_product {
    const char *name;
    int M, N, K;
    double flops_per_second;
} fb3_bench_product;
enum { FB3_BENCH_PRODUCTS = 4 };

typedef struct fb3_bench_result {
    const char *model, *device;
    const fb3_breakdown *breakdown;
    int ranks, sequences;
    int64_t tokens, parameters;                    /* of a rank and step; of the model's shape */
    fb3_bench_product product[FB3_BENCH_PRODUCTS]; /* the library's own, at the step's shapes */
    double product_rate, memory_rate;              /* limits of a rank: flop/s over those shapes, bytes/s */
    double step_seconds, step_flops;               /* median of the steps; the usual count (fb3_step_flops) */
    double utilisation;                            /* median over steps, each beside its own limit */
    double breakdown_seconds;                      /* of the step that was taken apart */
    double all_reduce_seconds, all_reduce_bytes;   /* of a whole gradient, alone; 0 with one rank */
    double exposed_seconds;                        /* of a step, waiting for the all-reduce */
    double write_rate, read_rate;                  /* bytes/s of a checkpoint's weights */
    double peak_memory_mb;
} fb3_bench_result;
fb3_status fb3_bench_print(const fb3_bench_result *result, bool json);

#endif
