/* fb3-dist doctor: what this build can do on this machine, a line each; and the versions for --version. */
#include "cli.h"
#include "fb3/cuda_library.h"
#include "fb3/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void print_versions(void)
{
    printf("fb3-dist %s\nMPI: %s\nHDF5: %s\nsentencepiece: %s\noneDNN: %s\n", FB3_VERSION, fb3_comm_library_version(),
           fb3_h5_version(), fb3_sentencepiece_version(), fb3_backend_library_version());
    const fb3_cuda_library *cuda;
    char text[192] = "not in this build";
    if (fb3_cuda_library_open(&cuda) == FB3_OK) cuda->versions(text, sizeof text);
    printf("CUDA: %s\n", text);
}

static void line(bool good, const char *what, const char *text)
{
    printf("%-4s %-14s %s\n", good ? "ok" : "FAIL", what, text);
}

static bool check_cpu(void)
{
    fb3_backend *backend = NULL;
    char text[128];
    bool good = fb3_backend_open(&backend, &(fb3_backend_options){.device = FB3_DEVICE_CPU}) == FB3_OK;
    if (good) fb3_backend_describe(backend, text, sizeof text);
    line(good, "cpu backend", good ? text : fb3_error_text());
    fb3_backend_close(backend);
    return good;
}

/* One line for the libraries, and one for each device or for why there is none. */
static void describe_cuda(void)
{
    const fb3_cuda_library *cuda;
    fb3_cuda_device device;
    char text[192];
    int count = 0;
    if (fb3_cuda_library_open(&cuda) != FB3_OK) {
        line(true, "cuda", fb3_error_text());
        return;
    }
    cuda->versions(text, sizeof text);
    line(true, "cuda", text);
    if (cuda->devices(&count) != FB3_OK) {
        snprintf(text, sizeof text, "not used: %.160s", fb3_error_text());
        line(true, "cuda devices", text);
    }
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "cuda:%d", i);
        bool good = cuda->device(i, &device) == FB3_OK;
        if (good)
            snprintf(text, sizeof text, "%s at %s, compute capability %d.%d, %.1f GiB", device.name, device.bus_id,
                     device.major, device.minor, (double)device.memory / (double)(1 << 30));
        line(good, name, good ? text : fb3_error_text());
    }
}

/* The job would write into output_dir, or make it. */
static bool check_output(const char *output_dir)
{
    const char *folder = fb3_folder_exists(output_dir) ? output_dir : ".";
    bool good = access(folder, W_OK) == 0;
    line(good, "output_dir", good ? output_dir : "the folder cannot be written");
    return good;
}

static void describe_scheduler(void)
{
    const char *job = getenv("SLURM_JOB_ID"), *size = getenv("OMPI_COMM_WORLD_SIZE");
    char text[128];
    if (job) {
        snprintf(text, sizeof text, "inside Slurm job %.40s", job);
    } else if (size) {
        snprintf(text, sizeof text, "started by mpirun, %.20s ranks", size);
    } else {
        snprintf(text, sizeof text, "none; start ranks with mpirun -np N fb3-dist");
    }
    line(true, "scheduler", text);
}

fb3_status cmd_doctor(fb3_config *config)
{
    char cores[64];
    snprintf(cores, sizeof cores, "%ld online", sysconf(_SC_NPROCESSORS_ONLN));
    line(true, "fb3-dist", FB3_VERSION);
    line(true, "cores", cores);
    line(true, "mpi", fb3_comm_library_version());
    describe_scheduler();
    line(true, "hdf5", fb3_h5_version());
    line(true, "sentencepiece", fb3_sentencepiece_version());
    line(true, "onednn", fb3_backend_library_version());
    bool good = check_cpu();
    bool bf16 = fb3_backend_cpu_has(FB3_BF16);
    line(true, "bf16", bf16 ? "bf16: auto computes in bf16" : "no AVX512-BF16 here: bf16: auto computes in float");
    describe_cuda();
    if (!check_output(config->output_dir)) good = false;
    fflush(stdout);
    FB3_REQUIRE(good, FB3_FAILED, "the default job could not run here; see the lines marked FAIL");
    return FB3_OK;
}
