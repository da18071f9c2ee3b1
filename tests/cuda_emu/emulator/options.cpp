/* The environment, failure, and the signals that bad accesses raise. */
#include "options.h"
#include "memory.h"
#include "ptx.h"
#include "scheduler.h"
#include "stats.h"

#include <csignal>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <execinfo.h>
#include <unistd.h>

namespace cudaemu
{

Options options;
uint64_t random_state;

void fail(const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n==cudaemu== ERROR: %s\n", message);
    if (current) fprintf(stderr, "==cudaemu==   in %s\n", where());
    void *calls[16];
    backtrace_symbols_fd(calls, backtrace(calls, 12), STDERR_FILENO);
    fflush(nullptr);
    _exit(99);
}

#ifndef CUDAEMU_ASAN /* which reports signals itself */
static void on_signal(int number, siginfo_t *info, void *)
{
    const void *p = info->si_addr;
    const Allocation *a = in_arena(p) ? allocation_at(p) : nullptr;
    if (number == SIGFPE && current) fail("integer division by zero");
    if (current && in_arena(p))
        fail("%p is outside every live device allocation%s", p, a && a->freed ? ": it is freed" : "");
    if (current)
        fail("signal %d at %p: the thread's stack overflows (large local arrays?), or a bad pointer", number, p);
    if (a)
        fail("HOST code touches device memory %p: allocation %u of %zu bytes, offset %zd%s", p, a->number,
             (size_t)(a->high - a->low), (ssize_t)((uintptr_t)p - a->low), a->freed ? ", freed" : "");
    signal(number, SIG_DFL);
    raise(number);
}
static void catch_signals()
{
    static char stack[64 << 10]; /* a handler cannot use a stack that overflowed */
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int number : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(number, &action, nullptr);
}
#endif

static const char *text_of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : nullptr;
}

static void number_of(const char *name, int *value)
{
    const char *text = text_of(name);
    char *end = nullptr;
    if (!text) return;
    *value = (int)strtol(text, &end, 10);
    if (*end) fail("%s=%s is not a number", name, text);
}

static bool is_counted_only(const char *name)
{
    const char *text = text_of(name);
    if (text && strcmp(text, "count") != 0 && strcmp(text, "run") != 0) fail("%s=%s: it is run or count", name, text);
    return text && strcmp(text, "count") == 0;
}

static void read_environment()
{
    int seed = 1, lazy = 1, protect = 1;
    number_of("CUDAEMU_SEED", &seed);
    number_of("CUDAEMU_LAZY", &lazy);
    number_of("CUDAEMU_PROTECT", &protect);
    options.driver = CUDART_VERSION;
    number_of("CUDAEMU_DEVICES", &options.devices);
    number_of("CUDAEMU_DRIVER", &options.driver);
    number_of("CUDAEMU_REPORTS", &options.reports);
    options.lazy = lazy != 0;
    options.protect = protect != 0;
    options.ptx = text_of("CUDAEMU_PTX");
    options.stats = text_of("CUDAEMU_STATS");
    options.trace = text_of("CUDAEMU_TRACE");
    options.run_kernels = !is_counted_only("CUDAEMU_KERNELS");
    options.run_products = !is_counted_only("CUDAEMU_PRODUCTS");
    random_state = 0x9E3779B97F4A7C15ull * (uint64_t)(seed + 1);
    for (int i = 0; i < 2; i++) random_bits();

    if (const char *order = text_of("CUDAEMU_ORDER")) {
        if (strcmp(order, "seq") == 0)
            options.order = Order::SEQUENTIAL;
        else if (strcmp(order, "rev") == 0)
            options.order = Order::REVERSE;
        else if (strcmp(order, "random") != 0)
            fail("CUDAEMU_ORDER=%s: it is random, seq or rev", order);
    }
    if (const char *memory = text_of("CUDAEMU_MEMORY")) {
        char *unit = nullptr;
        options.memory = strtoull(memory, &unit, 10);
        const char *units = "KMG", *u = *unit ? strchr(units, *unit) : nullptr;
        if (*unit && !u) fail("CUDAEMU_MEMORY=%s: a number of bytes, with K, M or G", memory);
        if (u) options.memory <<= 10 * (u - units + 1);
    }
    if (const char *capability = text_of("CUDAEMU_CAPABILITY"))
        if (sscanf(capability, "%d.%d", &options.major, &options.minor) != 2)
            fail("CUDAEMU_CAPABILITY=%s: it is like 9.0", capability);
}

void initialise()
{
    static bool done;
    if (done) return;
    done = true;
    read_environment();
    memory_setup();
#ifndef CUDAEMU_ASAN
    catch_signals();
#endif
    if (options.ptx) ptx_load(options.ptx);
    if (options.stats || options.trace) stats_setup();
}

} // namespace cudaemu
