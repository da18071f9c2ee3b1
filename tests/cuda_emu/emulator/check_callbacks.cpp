/* What clang++ -fsanitize=thread,bounds calls from instrumented kernels, in place of libtsan and libubsan; and memcpy,
 * memset and memmove of the whole library, by the linker's --wrap: clang copies structures with them. */
#ifdef CUDAEMU_CHECK
#include "check.h"
#include "scheduler.h"

#include <cstring>

using cudaemu::check_access;

#define HERE __builtin_return_address(0)

static inline bool idle()
{
    return cudaemu::check_paused;
}

static void check_range(const void *p, size_t bytes, bool write, const void *pc)
{
    const char *at = (const char *)p;
    while (bytes) {
        unsigned n = 16;
        while (n > 1 && (n > bytes || ((uintptr_t)at & (n - 1)))) n /= 2;
        check_access(at, n, write, false, pc);
        at += n;
        bytes -= n;
    }
}

extern "C" {

#define CALLBACKS(n)                                                                                                   \
    void __tsan_read##n(void *p)                                                                                       \
    {                                                                                                                  \
        if (!idle()) check_access(p, n, false, false, HERE);                                                           \
    }                                                                                                                  \
    void __tsan_write##n(void *p)                                                                                      \
    {                                                                                                                  \
        if (!idle()) check_access(p, n, true, false, HERE);                                                            \
    }                                                                                                                  \
    void __tsan_unaligned_read##n(void *p)                                                                             \
    {                                                                                                                  \
        if (!idle()) check_access(p, n, false, false, HERE);                                                           \
    }                                                                                                                  \
    void __tsan_unaligned_write##n(void *p)                                                                            \
    {                                                                                                                  \
        if (!idle()) check_access(p, n, true, false, HERE);                                                            \
    }                                                                                                                  \
    void __tsan_read_write##n(void *p)                                                                                 \
    {                                                                                                                  \
        if (idle()) return;                                                                                            \
        check_access(p, n, false, false, HERE);                                                                        \
        check_access(p, n, true, false, HERE);                                                                         \
    }                                                                                                                  \
    void __tsan_unaligned_read_write##n(void *p)                                                                       \
    {                                                                                                                  \
        if (idle()) return;                                                                                            \
        check_access(p, n, false, false, HERE);                                                                        \
        check_access(p, n, true, false, HERE);                                                                         \
    }
CALLBACKS(1)
CALLBACKS(2)
CALLBACKS(4)
CALLBACKS(8)
CALLBACKS(16)

void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
void __tsan_read_range(void *p, unsigned long n)
{
    check_range(p, n, false, HERE);
}
void __tsan_write_range(void *p, unsigned long n)
{
    check_range(p, n, true, HERE);
}

/* Of shared_ptr, in the host part of a .cu file. */
int __tsan_atomic32_fetch_add(volatile int *p, int v, int)
{
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_load(const volatile int *p, int)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
char __tsan_atomic8_load(const volatile char *p, int)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

void *__real_memcpy(void *to, const void *from, size_t n);
void *__real_memset(void *to, int value, size_t n);
void *__real_memmove(void *to, const void *from, size_t n);

void *__wrap_memcpy(void *to, const void *from, size_t n)
{
    if (!idle()) {
        check_range(from, n, false, HERE);
        check_range(to, n, true, HERE);
    }
    return __real_memcpy(to, from, n);
}
void *__wrap_memset(void *to, int value, size_t n)
{
    if (!idle()) check_range(to, n, true, HERE);
    return __real_memset(to, value, n);
}
void *__wrap_memmove(void *to, const void *from, size_t n)
{
    if (!idle()) {
        check_range(from, n, false, HERE);
        check_range(to, n, true, HERE);
    }
    return __real_memmove(to, from, n);
}

/* libubsan's layout of what it is told. */
struct OutOfBounds {
    const char *file;
    uint32_t line, column;
};
void __ubsan_handle_out_of_bounds_abort(OutOfBounds *where, uintptr_t index)
{
    cudaemu::fail("%s:%u: index %ld is out of bounds of its array", where->file, where->line, (long)index);
}

} // extern "C"
#endif
