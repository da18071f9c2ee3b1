/* Being asked to stop: SIGTERM and SIGUSR1 set a flag, and so does the scheduler's end time coming near. The ranks
 * agree on the flag at their next micro-batch (step.c), so that all stop at the same place. */
#include "fb3/log.h"
#include "fb3/train.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t stop_signal;

static void remember(int number)
{
    stop_signal = number;
    fb3_log_drop_foot(); /* a launcher may leave no time for more */
}

/* The default action follows when this has returned. */
static void clear_terminal(int number)
{
    fb3_log_drop_foot();
    raise(number);
}

/* The handler gets a stack of its own. Without it, about one stopped run in thirty died later of memory that had been
 * written over, on the CPU backend (measured): code that oneDNN generates seems to keep values below the stack pointer,
 * further than the system leaves alone when it calls a handler there. */
fb3_status fb3_signals_catch(void)
{
    static char handler_stack[1 << 16];
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    struct sigaction action = {.sa_handler = remember, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    FB3_REQUIRE(sigaltstack(&stack, NULL) == 0 && sigaction(SIGTERM, &action, NULL) == 0 &&
                    sigaction(SIGUSR1, &action, NULL) == 0,
                FB3_FAILED, "cannot catch signals: %s", strerror(errno));
    return FB3_OK;
}

fb3_status fb3_signals_clear_terminal(void)
{
    struct sigaction action = {.sa_handler = clear_terminal, .sa_flags = (int)(SA_RESETHAND | SA_ONSTACK)};
    sigemptyset(&action.sa_mask);
    FB3_REQUIRE(sigaction(SIGINT, &action, NULL) == 0, FB3_FAILED, "cannot catch signals: %s", strerror(errno));
    return FB3_OK;
}

/* Seconds since the epoch at which the scheduler ends the job, or 0. */
static long long scheduler_end(void)
{
    const char *text = getenv("SLURM_JOB_END_TIME");
    return text ? strtoll(text, NULL, 10) : 0;
}

bool fb3_signals_stop_wanted(int64_t stop_before_end)
{
    long long end = scheduler_end();
    return stop_signal != 0 || (end > 0 && (long long)time(NULL) >= end - stop_before_end);
}
