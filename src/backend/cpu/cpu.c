/* Opens the CPU backend: picks the operation table of the best instruction set that this processor has. One binary
 * carries them all. */
#include "cpu.h"
#include "onednn.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

extern const fb3_ops fb3_ops_cpu_baseline, fb3_ops_cpu_avx2, fb3_ops_cpu_avx512, fb3_ops_cpu_avx512_bf16;

typedef struct cpu_table {
    const char *name;
    fb3_dtype act;
    const fb3_ops *ops; /* NULL: not built for this processor family */
} cpu_table;

#if defined(__x86_64__)
static const cpu_table tables[FB3_CPU_TABLES] = {
    [FB3_CPU_BASELINE] = {"sse2", FB3_F32, &fb3_ops_cpu_baseline},
    [FB3_CPU_AVX2] = {"avx2", FB3_F32, &fb3_ops_cpu_avx2},
    [FB3_CPU_AVX512] = {"avx512", FB3_F32, &fb3_ops_cpu_avx512},
    [FB3_CPU_AVX512_BF16] = {"avx512_bf16", FB3_BF16, &fb3_ops_cpu_avx512_bf16},
};

static bool processor_has(fb3_cpu_table table)
{
    switch (table) {
    case FB3_CPU_AVX512_BF16:
        return processor_has(FB3_CPU_AVX512) && __builtin_cpu_supports("avx512bf16") && fb3_onednn_has_bf16();
    case FB3_CPU_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case FB3_CPU_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    default:
        return true;
    }
}
#else
static const cpu_table tables[FB3_CPU_TABLES] = {
    [FB3_CPU_BASELINE] = {"generic", FB3_F32, &fb3_ops_cpu_baseline},
    [FB3_CPU_AVX2] = {"avx2", FB3_F32, NULL},
    [FB3_CPU_AVX512] = {"avx512", FB3_F32, NULL},
    [FB3_CPU_AVX512_BF16] = {"avx512_bf16", FB3_BF16, NULL},
};

static bool processor_has(fb3_cpu_table table)
{
    return table == FB3_CPU_BASELINE;
}
#endif

bool fb3_cpu_has_table(fb3_cpu_table table)
{
    return tables[table].ops != NULL && processor_has(table);
}

fb3_status fb3_backend_open_cpu_table(fb3_backend *be, fb3_cpu_table table)
{
    FB3_REQUIRE(fb3_cpu_has_table(table), FB3_INPUT, "this processor has no %s; use another instruction set",
                tables[table].name);
    fb3_cpu_state *state = calloc(1, sizeof *state);
    FB3_REQUIRE(state != NULL, FB3_FAILED, "out of memory for the cpu backend; free some");
    state->table = table;
    be->state = state;
    be->act = tables[table].act;
    be->ops = tables[table].ops;
    return FB3_OK;
}

bool fb3_backend_cpu_has(fb3_dtype act)
{
    return act == FB3_F32 || fb3_cpu_has_table(FB3_CPU_AVX512_BF16);
}

fb3_status fb3_backend_open_cpu(fb3_backend *be, const fb3_backend_options *options)
{
    FB3_REQUIRE(fb3_backend_cpu_has(be->act), FB3_INPUT,
                "bf16: true needs a processor with AVX512-BF16, and this one has none; use bf16: auto or false");
    FB3_REQUIRE(options->attention_impl != FB3_ATTENTION_REFERENCE, FB3_INPUT,
                "attention_impl: reference is a path of CUDA; the CPU has one attention, use attention_impl: auto");
    FB3_REQUIRE(!options->tf32, FB3_INPUT, "tf32: true is for products on CUDA; on the CPU use tf32: false");
    fb3_cpu_table table = FB3_CPU_TABLES - 1;
    while (table > FB3_CPU_BASELINE && !(fb3_cpu_has_table(table) && tables[table].act == be->act)) table--;
    return fb3_backend_open_cpu_table(be, table);
}

void fb3_describe_cpu(const fb3_backend *be, char *text, size_t bytes)
{
    const fb3_cpu_state *state = be->state;
    snprintf(text, bytes, "cpu %s, oneDNN %s", tables[state->table].name, fb3_backend_library_version());
}
