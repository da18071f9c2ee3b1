/* Fibers and the block that they are the threads of. Internal. */
#ifndef CUDAEMU_SCHEDULER_H
#define CUDAEMU_SCHEDULER_H

#include "kernel.h"
#include "options.h"

#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define CUDAEMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDAEMU_ASAN 1
#endif
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cudaemu
{

enum class State : uint8_t { IDLE, RUNNABLE, RUNNING, AT_BLOCK_BARRIER, AT_WARP_OPERATION, DONE };

struct AsyncCopy {
    void *to;
    const void *from;
    int bytes;
    bool valid, landed;
    unsigned group;
};

/* A CUDA thread, or (main_fiber) whoever runs the kernel. */
struct Fiber {
    void *stack_pointer = nullptr;
    char *stack = nullptr;
    size_t stack_bytes = 0;
    uint3 thread = {};
    unsigned linear = 0, lane = 0, warp = 0;
    State state = State::IDLE;
    const char *waits_in = "", *file = "";
    int line = 0;
    std::vector<AsyncCopy> copies; /* oldest first */
    unsigned copy_group = 0;       /* the open one */
#ifdef CUDAEMU_ASAN
    void *fake_stack = nullptr;
#endif
#if !defined(__x86_64__)
    ucontext_t context;
#endif
};

enum { THREADS_MAX = 1024, WARPS_MAX = 32 };
extern Fiber fibers[THREADS_MAX], main_fiber;
extern Fiber *current; /* null outside kernels */

/* --- fiber.cpp ---------------------------------------------------------------------------------------------------- */

/* Gives the fiber a stack, if it has none, on which `body` starts at the first switch to it. */
void fiber_make(Fiber *fiber, unsigned number, void (*body)());
void fiber_enter_main(); /* before the first switch away from the thread that runs a kernel */
#if defined(__x86_64__)
extern "C" CUDAEMU_INTERNAL void cudaemu_switch(void **save, void *to);
#endif
#ifdef CUDAEMU_ASAN
void fiber_switch_asan(Fiber *from, Fiber *to);
#endif
static inline void fiber_switch(Fiber *from, Fiber *to)
{
#if defined(CUDAEMU_ASAN)
    fiber_switch_asan(from, to);
#elif defined(__x86_64__)
    cudaemu_switch(&from->stack_pointer, to->stack_pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
}

/* --- scheduler.cpp ------------------------------------------------------------------------------------------------ */

/* The launch that runs. */
struct Running {
    const char *kernel = "";
    unsigned long number = 0;
    void (*enter)(void *) = nullptr;
    void *argument = nullptr;
    size_t argument_bytes = 0, shared_bytes = 0;
    const void *function = nullptr;
};
extern Running running;

/* Runs every block of a launch to its end. */
void run_grid(const Launch &launch);

/* "kernel 'k' (launch 3), block (0,0,0), thread (1,0,0)" of the current thread. */
const char *where();
/* The readable name of a kernel: its symbol's where it has one. */
const char *kernel_name(const Launch &launch);

} // namespace cudaemu

#endif
