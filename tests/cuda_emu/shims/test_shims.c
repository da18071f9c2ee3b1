/* Tests of the library shims over the emulator.
 *
 *   test_shims                 products, softmax, and NCCL in a group of one
 *   mpirun -n N test_shims nccl <what>   see test_nccl.c; run_nccl_tests.sh runs all of it */
#include "test_shims.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int test_checks, test_failures;

void expect_death(const char *name, void (*body)(void), const char *text)
{
    int ends[2];
    MUST(pipe(ends));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        alarm(20);
        body();
        _exit(0);
    }
    close(ends[1]);
    char said[4096];
    size_t length = 0;
    for (ssize_t got; (got = read(ends[0], said + length, sizeof said - 1 - length)) > 0;) length += (size_t)got;
    said[length] = 0;
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    bool died = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(died && strstr(said, text), "%s: %s, said: %s", name, died ? "died" : "lived on", said);
}

void set_quiet(bool quiet)
{
    static int kept = -1;
    fflush(stderr);
    if (quiet && kept < 0) {
        kept = dup(STDERR_FILENO);
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDERR_FILENO);
        close(nowhere);
    } else if (!quiet && kept >= 0) {
        dup2(kept, STDERR_FILENO);
        close(kept);
        kept = -1;
    }
}

void *device_copy(const void *data, size_t bytes)
{
    void *device;
    MUST(cudaMalloc(&device, bytes));
    if (data) MUST(cudaMemcpy(device, data, bytes, cudaMemcpyHostToDevice));
    return device;
}

void host_copy(void *to, const void *from, size_t bytes)
{
    MUST(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

double test_random(void)
{
    static uint64_t state = 0x2545f4914f6cdd1d;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) / (double)(UINT64_C(1) << 52) - 1;
}

static void run_test(const char *name, void (*test)(void))
{
    int checks = test_checks, failures = test_failures;
    test();
    printf("%-10s %6d checks, %d failed\n", name, test_checks - checks, test_failures - failures);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "nccl")) return test_nccl_ranks(argc - 2, argv + 2);
    run_test("products", test_products);
    run_test("softmax", test_softmax);
    run_test("nccl alone", test_nccl_alone);
    printf("%s\n", test_failures ? "FAILED" : "ok");
    return test_failures != 0;
}
