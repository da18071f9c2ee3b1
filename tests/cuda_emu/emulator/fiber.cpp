/* Fibers: stacks with a guard page, and the switch between them (ucontext's is 5.7 times slower: measured). */
#include "scheduler.h"

#include <cstring>
#include <pthread.h>
#include <sys/mman.h>
#ifdef CUDAEMU_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace cudaemu
{

#if defined(__x86_64__)
asm(".text\n"
    ".p2align 4\n"
    ".globl cudaemu_switch\n"
    ".hidden cudaemu_switch\n"
    ".type cudaemu_switch,@function\n"
    "cudaemu_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp,(%rdi)\n"
    "  movq %rsi,%rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size cudaemu_switch,.-cudaemu_switch\n");
#endif

#ifdef CUDAEMU_ASAN
enum : size_t { STACK_BYTES = 256 << 10 }; /* its frames are larger */
#else
enum : size_t { STACK_BYTES = 64 << 10 };
#endif
enum : size_t { GUARD_BYTES = 4096 };

static void (*fiber_body)();

static void fiber_start()
{
#ifdef CUDAEMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    fiber_body();
}

void fiber_make(Fiber *fiber, unsigned number, void (*body)())
{
    if (fiber->stack) return;
    fiber_body = body;
    char *memory = (char *)mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) fail("no memory for a thread's stack");
    fiber->stack = memory + GUARD_BYTES;
    fiber->stack_bytes = STACK_BYTES;
    char *top = fiber->stack + STACK_BYTES - number * 29 % 61 * 64; /* staggered, or all share a few cache sets */
#if defined(__x86_64__)
    void **frame = (void **)((uintptr_t)top & ~(uintptr_t)15);
    memset(frame - 8, 0, 8 * sizeof *frame); /* six registers, the address to return to, the end of the call chain */
    frame[-2] = (void *)fiber_start;
    fiber->stack_pointer = frame - 8;
#else
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = (size_t)(top - fiber->stack);
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_start, 0);
#endif
}

void fiber_enter_main()
{
#ifdef CUDAEMU_ASAN
    static thread_local char *stack;
    static thread_local size_t bytes;
    if (!stack) {
        pthread_attr_t attributes;
        void *low = nullptr;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &low, &bytes);
        pthread_attr_destroy(&attributes);
        stack = (char *)low;
    }
    main_fiber.stack = stack;
    main_fiber.stack_bytes = bytes;
#endif
}

#ifdef CUDAEMU_ASAN
void fiber_switch_asan(Fiber *from, Fiber *to)
{
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#if defined(__x86_64__)
    cudaemu_switch(&from->stack_pointer, to->stack_pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
}
#endif

} // namespace cudaemu
