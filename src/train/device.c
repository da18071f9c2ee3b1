/* The device of every rank: which kind the world takes, who takes which, the start table, the all-reduce between them.
 */
#include "fb3/cuda_library.h"
#include "fb3/hash.h"
#include "fb3/log.h"
#include "fb3/train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FB3_INPUT with the reason where CUDA cannot be used on this machine. */
static fb3_status look_for_cuda(void)
{
    const fb3_cuda_library *library;
    int devices;
    FB3_TRY(fb3_cuda_library_open(&library));
    return library->devices(&devices);
}

/* `auto` is cuda where a device answers every rank; why not is kept for the start table. */
static fb3_status resolve_device(fb3_session *session)
{
    const fb3_device wanted = session->config->device;
    session->device = wanted;
    if (wanted == FB3_DEVICE_CPU) return FB3_OK;
    fb3_status found = look_for_cuda();
    if (found != FB3_OK && wanted == FB3_DEVICE_CUDA) found = fb3_fail_context(found, "device: cuda");
    if (wanted == FB3_DEVICE_CUDA) return fb3_comm_agree(session->comm, found, "device: cuda");
    int64_t lacking = found != FB3_OK;
    if (lacking) snprintf(session->why_not_cuda, sizeof session->why_not_cuda, "%s", fb3_error_text());
    FB3_TRY(fb3_comm_max_int64(session->comm, &lacking, 1, "agreeing on the device"));
    if (lacking && !session->why_not_cuda[0])
        snprintf(session->why_not_cuda, sizeof session->why_not_cuda, "another rank has no device");
    session->device = lacking ? FB3_DEVICE_CPU : FB3_DEVICE_CUDA;
    return FB3_OK;
}

/* One arithmetic for the whole world: `auto` is bf16 where the device of every rank does it. */
static fb3_status resolve_bf16(fb3_session *session)
{
    if (session->config->bf16 != FB3_AUTO) return FB3_OK;
    int64_t lacking = session->device == FB3_DEVICE_CPU && !fb3_backend_cpu_has(FB3_BF16);
    FB3_TRY(fb3_comm_max_int64(session->comm, &lacking, 1, "agreeing on bf16"));
    session->config->bf16 = lacking ? FB3_OFF : FB3_ON;
    return FB3_OK;
}

void fb3_session_print_ranks(const fb3_session *session, void (*note)(const void *context, int rank),
                             const void *context)
{
    const fb3_rank_info *info = session->ranks;
    if (!session->first || session->config->quiet) return;
    printf("%4s  %-16s %5s %5s  %s\n", "rank", "host", "node", "cores", "device");
    for (int r = 0; r < fb3_comm_size(session->world); r++) {
        printf("%4d  %-16s %5d %5d  %s", info[r].rank, info[r].host, info[r].node, info[r].cores, info[r].device);
        if (note) note(context, r);
        printf("\n");
    }
    if (session->device == FB3_DEVICE_CPU && session->why_not_cuda[0])
        printf("cuda is not used: %s\n", session->why_not_cuda);
    fflush(stdout);
}

static int by_place_of_device(const void *left, const void *right)
{
    const fb3_rank_info *a = left, *b = right;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    int order = strcmp(a->device_id, b->device_id);
    return order ? order : (a->rank > b->rank) - (a->rank < b->rank);
}

/* Two ranks on one device would be slower than one, and would run out of memory first. */
static fb3_status check_devices_differ(const fb3_session *session, const fb3_rank_info *info)
{
    const int size = session->size;
    fb3_status status = FB3_OK;
    fb3_rank_info *sorted = malloc((size_t)size * sizeof *sorted);
    FB3_REQUIRE(sorted, FB3_FAILED, "out of memory for the start table");
    memcpy(sorted, info, (size_t)size * sizeof *sorted);
    qsort(sorted, (size_t)size, sizeof *sorted, by_place_of_device);
    for (int r = 1; r < size; r++) {
        const fb3_rank_info *a = &sorted[r - 1], *b = &sorted[r];
        bool same = a->device_id[0] && a->node == b->node && strcmp(a->device_id, b->device_id) == 0;
        FB3_REQUIRE_GOTO(!same, done, FB3_INPUT,
                         "ranks %d and %d of %s have the same device, %s at %s; start one rank per device", a->rank,
                         b->rank, a->host, a->device, a->device_id);
    }
done:
    free(sorted);
    return status;
}

static fb3_status gather_ranks(fb3_session *session, const char *device, const char *device_id)
{
    session->ranks = calloc((size_t)session->size, sizeof *session->ranks);
    FB3_REQUIRE(session->ranks, FB3_FAILED, "out of memory for the start table");
    FB3_TRY(fb3_comm_gather_info(session->comm, device, device_id, session->ranks));
    return check_devices_differ(session, session->ranks);
}

static fb3_status open_device(fb3_session *session, char device_id[16])
{
    const fb3_config *config = session->config;
    const fb3_cuda_library *library;
    fb3_cuda_device device;
    FB3_TRY(
        fb3_backend_open(&session->backend, &(fb3_backend_options){.device = session->device,
                                                                   .act = config->bf16 == FB3_ON ? FB3_BF16 : FB3_F32,
                                                                   .attention_impl = config->attention_impl,
                                                                   .tf32 = config->tf32,
                                                                   .node_rank = fb3_comm_node_rank(session->comm),
                                                                   .node_ranks = fb3_comm_node_size(session->comm)}));
    if (session->device == FB3_DEVICE_CPU) return FB3_OK;
    FB3_TRY(fb3_cuda_library_open(&library));
    FB3_TRY(library->opened(session->backend, &device));
    memcpy(device_id, device.bus_id, sizeof device.bus_id);
    return FB3_OK;
}

/* Kinds of processors and devices differ in the last bits. `device` is a name, then the kind. */
static fb3_status check_same_arithmetic(fb3_session *session, const char *device)
{
    char hex[FB3_SHA256_HEX];
    const char *kind = strchr(device, ' ');
    FB3_TRY(fb3_sha256_memory(kind ? kind : device, strlen(kind ? kind : device), hex));
    fb3_status status = fb3_comm_check_same(session->comm, hex, "reproducible: kind of processor or device");
    return status == FB3_OK ? FB3_OK : fb3_fail_context(status, "this rank has %s", device);
}

fb3_status fb3_session_open_backend(fb3_session *session)
{
    char device[128], device_id[16] = "";
    FB3_TRY(resolve_device(session));
    FB3_TRY(resolve_bf16(session));
    FB3_TRY(fb3_comm_agree(session->comm, open_device(session, device_id), "opening the device"));
    if (session->config->debug) FB3_TRY(fb3_backend_make_checked(session->backend));
    fb3_backend_describe(session->backend, device, sizeof device);
    if (session->config->reproducible) FB3_TRY(check_same_arithmetic(session, device));
    FB3_TRY(gather_ranks(session, device, device_id));
    return fb3_comm_agree(session->comm, fb3_profile_begin(session), "beginning the trace");
}

static fb3_status connect_devices(fb3_session *session)
{
    const fb3_cuda_library *library;
    fb3_reducer_id id = {{0}};
    FB3_TRY(fb3_cuda_library_open(&library));
    fb3_status status = session->root && session->size > 1 ? library->reducer_id(&id) : FB3_OK;
    FB3_TRY(fb3_comm_agree(session->comm, status, "naming the communicator of the devices"));
    FB3_TRY(fb3_comm_broadcast(session->comm, &id, sizeof id, 0, "the communicator of the devices"));
    /* no agreement: a rank that fails ends the others at once, who would wait for it until ddp_timeout */
    return library->reducer_create(&session->reducer, session->backend, &id, session->rank, session->size,
                                   session->config->ddp_timeout);
}

fb3_status fb3_session_reducer(fb3_session *session, fb3_reducer **reducer)
{
    bool on_host = session->device == FB3_DEVICE_CPU;
    if (!session->reducer)
        FB3_TRY(on_host ? fb3_reducer_create_mpi(&session->reducer, session->comm) : connect_devices(session));
    *reducer = session->reducer;
    return FB3_OK;
}
