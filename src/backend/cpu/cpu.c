/* Opens the CPU backend: picks the operation table of the best instruction set that this processor has. One binary
 * carries them all. */
#include "cpu.h"
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>

extern const fb3_ops fb3_ops_cpu_baseline, fb3_ops_cpu_avx2, fb3_ops_cpu_avx512;

typedef struct cpu_isa {
    const char *name;
    const fb3_ops *ops; /* NULL: not built for this processor family */
} cpu_isa;

#if defined(__x86_64__)
static const cpu_isa isas[FB3_CPU_ISAS] = {
    [FB3_CPU_BASELINE] = {"sse2", &fb3_ops_cpu_baseline},
    [FB3_CPU_AVX2] = {"avx2", &fb3_ops_cpu_avx2},
    [FB3_CPU_AVX512] = {"avx512", &fb3_ops_cpu_avx512},
};

static bool processor_has(fb3_cpu_isa isa)
{
    switch (isa) {
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
static const cpu_isa isas[FB3_CPU_ISAS] = {
    [FB3_CPU_BASELINE] = {"generic", &fb3_ops_cpu_baseline},
    [FB3_CPU_AVX2] = {"avx2", NULL},
    [FB3_CPU_AVX512] = {"avx512", NULL},
};

static bool processor_has(fb3_cpu_isa isa)
{
    return isa == FB3_CPU_BASELINE;
}
#endif

bool fb3_cpu_has_isa(fb3_cpu_isa isa)
{
    return isas[isa].ops != NULL && processor_has(isa);
}

fb3_status fb3_backend_open_cpu_isa(fb3_backend *be, fb3_cpu_isa isa)
{
    FB3_REQUIRE(fb3_cpu_has_isa(isa), FB3_INPUT, "this processor has no %s; use another instruction set",
                isas[isa].name);
    fb3_cpu_state *state = calloc(1, sizeof *state);
    FB3_REQUIRE(state != NULL, FB3_FAILED, "out of memory for the cpu backend; free some");
    state->isa = isa;
    be->state = state;
    be->ops = isas[isa].ops;
    return FB3_OK;
}

fb3_status fb3_backend_open_cpu(fb3_backend *be)
{
    fb3_cpu_isa isa = FB3_CPU_ISAS - 1;
    while (isa > FB3_CPU_BASELINE && !fb3_cpu_has_isa(isa)) isa--;
    return fb3_backend_open_cpu_isa(be, isa);
}

const char *fb3_backend_library_version(void)
{
    static char text[32];
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", version->major, version->minor, version->patch);
    return text;
}

void fb3_describe_cpu(const fb3_backend *be, char *text, size_t bytes)
{
    const fb3_cpu_state *state = be->state;
    int threads = omp_get_max_threads();
    snprintf(text, bytes, "cpu, %d thread%s, %s, oneDNN %s", threads, threads == 1 ? "" : "s", isas[state->isa].name,
             fb3_backend_library_version());
}
