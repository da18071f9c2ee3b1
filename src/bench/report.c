/* What bench found, as a table or as JSON. */
#include "fb3/bench.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* Operations below this share of a step are one line together. */
#define SMALL_SHARE 0.002

static double giga(double x)
{
    return 1e-9 * x;
}

static double executed_flops(const fb3_breakdown *b)
{
    double sum = 0;
    for (int i = 0; i < b->count; i++) sum += b->total[i].work.flops;
    return sum;
}

static double operation_seconds(const fb3_breakdown *b)
{
    double sum = 0;
    for (int i = 0; i < b->count; i++) sum += b->total[i].seconds;
    return sum;
}

static void print_line(const char *name, int calls, double seconds, double whole, fb3_work work,
                       const fb3_bench_result *r)
{
    printf("  %-24s %5d %9.2f %6.1f %%", name, calls, 1e3 * seconds, 100 * seconds / whole);
    if (work.flops > 0)
        printf("  %7.0f GFLOP/s %5.0f %%", giga(work.flops / seconds), 100 * work.flops / seconds / r->product_rate);
    else if (work.bytes > 0)
        printf("  %7.1f GB/s    %5.0f %%", giga(work.bytes / seconds), 100 * work.bytes / seconds / r->memory_rate);
    putchar('\n');
}

static void print_breakdown(const fb3_bench_result *r)
{
    const fb3_breakdown *b = r->breakdown;
    fb3_op_total small = {0};
    printf("\n  %-24s %5s %9s %8s  %15s %8s\n", "operation", "calls", "ms", "of step", "achieved", "of limit");
    for (int i = 0; i < b->count; i++) {
        const fb3_op_total *t = &b->total[i];
        if (t->seconds >= SMALL_SHARE * r->breakdown_seconds) {
            print_line(t->op, t->calls, t->seconds, r->breakdown_seconds, t->work, r);
        } else {
            small.calls += t->calls;
            small.seconds += t->seconds;
        }
    }
    print_line("the other operations", small.calls, small.seconds, r->breakdown_seconds, (fb3_work){0}, r);
    print_line("outside operations", 0, r->breakdown_seconds - operation_seconds(b), r->breakdown_seconds,
               (fb3_work){0}, r);
}

static void print_table(const fb3_bench_result *r)
{
    double tokens = (double)r->tokens * r->ranks;
    printf("%s, %d rank(s), %s\n", r->model, r->ranks, r->device);
    printf("limits of a rank: products of the device's library");
    for (int p = 0; p < FB3_BENCH_PRODUCTS; p++) {
        const fb3_bench_product *product = &r->product[p];
        printf("%s [%d,%d]x[%d,%d] %.0f", p ? "," : "", product->M, product->K, product->K, product->N,
               giga(product->flops_per_second));
    }
    printf(" GFLOP/s, together %.0f; memory %.1f GB/s\n", giga(r->product_rate), giga(r->memory_rate));
    printf("step of %d essays, %lld tokens a rank: %.3f s, %.2f samples/s, %.0f tokens/s\n", r->sequences,
           (long long)r->tokens, r->step_seconds, r->sequences * r->ranks / r->step_seconds, tokens / r->step_seconds);
    printf("utilisation %.1f %%: %.0f MFLOP a token, %.0f GFLOP/s a rank; executed %.0f GFLOP/s\n",
           100 * r->utilisation, 1e-6 * r->step_flops / (double)r->tokens, giga(r->step_flops / r->step_seconds),
           giga(executed_flops(r->breakdown) / r->breakdown_seconds));
    print_breakdown(r);
    printf("\npeak memory %.0f MB", r->peak_memory_mb);
    if (r->all_reduce_seconds > 0) {
        printf("; all-reduce of a gradient alone %.1f ms, %.1f GB/s (%.0f %% of memory); exposed in a step %.1f ms, "
               "%.1f %%",
               1e3 * r->all_reduce_seconds, giga(r->all_reduce_bytes / r->all_reduce_seconds),
               100 * r->all_reduce_bytes / r->all_reduce_seconds / r->memory_rate, 1e3 * r->exposed_seconds,
               100 * r->exposed_seconds / r->step_seconds);
    }
    printf("; checkpoint of weights: written at %.2f GB/s, read at %.2f GB/s\n", giga(r->write_rate),
           giga(r->read_rate));
}

static json_t *breakdown_json(const fb3_breakdown *b)
{
    json_t *list = json_array();
    for (int i = 0; i < b->count; i++) {
        const fb3_op_total *t = &b->total[i];
        json_array_append_new(list, json_pack("{s:s, s:i, s:f, s:f, s:f}", "operation", t->op, "calls", t->calls,
                                              "seconds", t->seconds, "flops", t->work.flops, "bytes", t->work.bytes));
    }
    return list;
}

static json_t *products_json(const fb3_bench_result *r)
{
    json_t *list = json_array();
    for (int p = 0; p < FB3_BENCH_PRODUCTS; p++) {
        const fb3_bench_product *product = &r->product[p];
        json_array_append_new(list, json_pack("{s:i, s:i, s:i, s:f}", "M", product->M, "N", product->N, "K", product->K,
                                              "flops_per_second", product->flops_per_second));
    }
    return list;
}

static fb3_status print_json(const fb3_bench_result *r)
{
    double tokens = (double)r->tokens * r->ranks, samples = (double)r->sequences * r->ranks;
    json_t *all = json_pack(
        "{s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o}", "model",
        r->model, "device", r->device, "ranks", r->ranks, "samples", samples, "tokens", tokens, "step_seconds",
        r->step_seconds, "samples_per_second", samples / r->step_seconds, "tokens_per_second", tokens / r->step_seconds,
        "step_flops_per_rank", r->step_flops, "executed_flops_per_rank", executed_flops(r->breakdown), "product_limit",
        r->product_rate, "memory_limit", r->memory_rate, "utilisation", r->utilisation, "breakdown_seconds",
        r->breakdown_seconds, "all_reduce_seconds", r->all_reduce_seconds, "exposed_seconds", r->exposed_seconds,
        "peak_memory_mb", r->peak_memory_mb, "checkpoint_write_bytes_per_second", r->write_rate, "products",
        products_json(r), "operations", breakdown_json(r->breakdown));
    if (all) json_object_set_new(all, "checkpoint_read_bytes_per_second", json_real(r->read_rate));
    char *text = all ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(all);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory for JSON");
    puts(text);
    free(text);
    return FB3_OK;
}

fb3_status fb3_bench_print(const fb3_bench_result *result, bool json)
{
    if (json) return print_json(result);
    print_table(result);
    fflush(stdout);
    return FB3_OK;
}
