#include "stats.h"
#include "library_calls.h"
#include "memory.h"
#include "ptx.h"
#include "scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <unistd.h>

namespace cudaemu
{

Counters counters;
bool count_accesses;

static const char *const COLUMNS[] = {"launches",
                                      "blocks",
                                      "threads",
                                      "block_barriers",
                                      "warp_operations",
                                      "shuffles",
                                      "mma",
                                      "ldmatrix",
                                      "async_copies",
                                      "global_read",
                                      "global_written",
                                      "unique_read",
                                      "unique_written",
                                      "shared_read",
                                      "shared_written",
                                      "instructions",
                                      "fp32",
                                      "fp32_fma",
                                      "fp32_special",
                                      "warp_instructions",
                                      "warp_narrow_loads",
                                      "warp_shared_loads",
                                      "warp_shared_stores"};
enum { COLUMN_COUNT = sizeof COLUMNS / sizeof *COLUMNS, FIRST_MEASURED = 3, FIRST_ACCESS = 9, FIRST_INSTRUCTION = 15 };
static_assert(sizeof(Counters) == COLUMN_COUNT * sizeof(int64_t), "a column for each counter");

static std::map<std::string, Counters> rows; /* by kernel */
static Counters at_begin;

/* --- unique bytes: a bit per byte of the arena pages that a launch touches ---------------------------------------- */

struct TouchedPage {
    unsigned long launch;
    uint64_t bytes[2][PAGE / 64]; /* read, written */
};
static std::vector<TouchedPage *> touched; /* by page of the arena */

void count_access(const void *p, unsigned bytes, bool write, bool shared)
{
    if (shared) {
        (write ? counters.shared_written : counters.shared_read) += bytes;
        return;
    }
    (write ? counters.global_written : counters.global_read) += bytes;
    size_t at = (uintptr_t)p - ARENA, number = at / PAGE;
    if (number >= touched.size()) touched.resize(number + 1024);
    TouchedPage *&page = touched[number];
    if (!page) page = new TouchedPage();
    if (page->launch != running.number) {
        memset(page->bytes, 0, sizeof page->bytes);
        page->launch = running.number;
    }
    uint64_t mask = (bytes >= 64 ? ~0ull : (1ull << bytes) - 1) << at % 64; /* aligned: never across two words */
    uint64_t &word = page->bytes[write][at % PAGE / 64];
    (write ? counters.unique_written : counters.unique_read) += __builtin_popcountll(mask & ~word);
    word |= mask;
}

/* --- the trace ---------------------------------------------------------------------------------------------------- */

static FILE *trace;

void trace_row(const char *format, ...)
{
    if (!trace) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(trace, format, arguments);
    va_end(arguments);
    fputc('\n', trace);
    fflush(trace); /* others append to the file, too */
}

extern "C" void cudaemu_trace_product(const long long *numbers, int count)
{
    if (!trace) return;
    std::string row = "product";
    for (int i = 0; i < count; i++) row += "\t" + std::to_string(numbers[i]);
    trace_row("%s", row.c_str());
}

extern "C" int cudaemu_products_run(void)
{
    return options.run_products;
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

/* Column i is counted in this mode. */
static bool is_known(int i)
{
    if (i >= FIRST_MEASURED && !options.run_kernels) return false;
    return i < FIRST_ACCESS || (i < FIRST_INSTRUCTION ? count_accesses : ptx_active());
}

void stats_launch_begin()
{
    at_begin = counters;
}

static void trace_launch()
{
    const int64_t *before = (const int64_t *)&at_begin, *now = (const int64_t *)&counters;
    const dim3 grid = builtins.grid_dim;
    std::string row = std::string("kernel\t") + running.kernel;
    for (unsigned long n : {(unsigned long)grid.x, (unsigned long)grid.y, (unsigned long)grid.z,
                            (unsigned long)builtins.block_dim.x, (unsigned long)running.shared_bytes})
        row += "\t" + std::to_string(n);
    for (int i = 0; i < COLUMN_COUNT; i++) row += "\t" + std::to_string(is_known(i) ? now[i] - before[i] : -1);
    trace_row("%s", row.c_str());
}

void stats_launch_end()
{
    if (trace) trace_launch();
    if (!options.stats) return;
    int64_t *row = (int64_t *)&rows[running.kernel];
    const int64_t *before = (const int64_t *)&at_begin, *now = (const int64_t *)&counters;
    for (int i = 0; i < COLUMN_COUNT; i++) row[i] += now[i] - before[i];
}

static void write_table()
{
    if (strcmp(options.stats, "1") == 0) {
        fprintf(stderr, "==cudaemu== %10s %10s %12s %10s  kernel\n", "launches", "blocks", "threads", "mma.sync");
        for (auto &row : rows)
            fprintf(stderr, "==cudaemu== %10ld %10ld %12ld %10ld  %s\n", (long)row.second.launches,
                    (long)row.second.blocks, (long)row.second.threads, (long)row.second.mma, row.first.c_str());
        return;
    }
    std::string path = options.stats;
    size_t at = path.find("%p");
    if (at != std::string::npos) path.replace(at, 2, std::to_string(getpid()));
    FILE *file = fopen(path.c_str(), "w");
    if (!file) {
        fprintf(stderr, "==cudaemu== cannot write %s (CUDAEMU_STATS)\n", path.c_str());
        return;
    }
    fputs("kernel", file);
    for (const char *name : COLUMNS) fprintf(file, "\t%s", name);
    for (auto &row : rows) {
        const int64_t *values = (const int64_t *)&row.second;
        fprintf(file, "\n%s", row.first.c_str());
        for (int i = 0; i < COLUMN_COUNT; i++) {
            fprintf(file, "\t%ld", is_known(i) ? (long)values[i] : -1L);
        }
    }
    fputc('\n', file);
    fclose(file);
}

void stats_setup()
{
#ifdef CUDAEMU_CHECK
    count_accesses = true;
#else
    count_accesses = ptx_active();
#endif
    if (options.trace && !(trace = fopen(options.trace, "a")))
        fprintf(stderr, "==cudaemu== cannot write %s (CUDAEMU_TRACE)\n", options.trace);
    if (options.stats) atexit(write_table);
}

} // namespace cudaemu
