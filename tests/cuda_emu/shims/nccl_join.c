/* How the ranks of an NCCL communicator find each other over MPI.
 *
 * NCCL's ranks know the unique id, the size of their group and their place in it, not who the others are. The id holds
 * the MPI rank that made it, the root, which must itself be a member (in NCCL it need not be). Every member sends the
 * root its place; when all have come, the root sends everybody the list; then all members call MPI_Comm_create_group,
 * which involves nobody else, so any subset of the world can have a communicator.
 *
 * Messages travel on MPI_COMM_WORLD with tags from 30000 to 31999, which the program must leave alone. Only
 * MPI_Comm_create_group blocks, and only until the other members, who have the list too, look at their join again. */
#include "nccl_shim.h"

#include <time.h>
#include <unistd.h>

static const uint64_t ID_MAGIC = UINT64_C(0x6662332d6e63636c);
_Static_assert(sizeof(nccl_id) <= sizeof(ncclUniqueId), "does not fit the unique id");

enum { TAG_HELLO = 30000, TAG_LIST = 31000, TAGS = 1000 };

typedef struct hello {
    uint64_t nonce;
    int32_t size, rank, world_rank, unused;
} hello;

struct nccl_join {
    nccl_id id;
    int size, rank, came; /* came: the root's count of members that said hello, itself included */
    bool is_root, is_sent, has_list;
    hello mine, theirs;
    int *members; /* [size] ranks of MPI_COMM_WORLD; -1 is nobody yet */
    MPI_Request receive, *sends;
    int send_count;
};

static bool mpi_is_up(void)
{
    int begun, ended;
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    return begun && !ended;
}

static int world_rank(void)
{
    int rank = 0;
    if (mpi_is_up()) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

ncclResult_t nccl_id_make(ncclUniqueId *id)
{
    static int32_t serial;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    nccl_id made = {ID_MAGIC, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, world_rank(), serial++};
    made.nonce ^= (uint64_t)getpid() << 48;
    memset(id, 0, sizeof *id);
    memcpy(id, &made, sizeof made);
    return ncclSuccess;
}

bool nccl_id_is_valid(const ncclUniqueId *id)
{
    nccl_id made;
    memcpy(&made, id, sizeof made);
    return made.magic == ID_MAGIC;
}

static int tag(const nccl_join *join, int first)
{
    return first + join->id.serial % TAGS;
}

static void await_hello(nccl_join *join)
{
    MPI_Irecv(&join->theirs, sizeof join->theirs, MPI_BYTE, MPI_ANY_SOURCE, tag(join, TAG_HELLO), MPI_COMM_WORLD,
              &join->receive);
}

nccl_join *nccl_join_begin(const ncclUniqueId *id, int size, int rank)
{
    nccl_join *join = shim_alloc(sizeof *join);
    memset(join, 0, sizeof *join);
    memcpy(&join->id, id, sizeof join->id);
    join->size = size, join->rank = rank, join->came = 1;
    join->receive = MPI_REQUEST_NULL;
    join->is_root = world_rank() == join->id.root;
    join->members = shim_alloc(sizeof *join->members * (size_t)size);
    join->sends = shim_alloc(sizeof(MPI_Request) * (size_t)size);
    for (int i = 0; i < size; i++) join->members[i] = -1;
    join->members[rank] = world_rank();
    if (size == 1) return join;
    if (!mpi_is_up()) shim_misuse(NCCL_SHIM, "a communicator of %d ranks needs MPI, which is not initialised", size);
    join->mine = (hello){join->id.nonce, size, rank, world_rank(), 0};
    if (join->is_root) {
        await_hello(join);
    } else {
        MPI_Isend(&join->mine, sizeof join->mine, MPI_BYTE, join->id.root, tag(join, TAG_HELLO), MPI_COMM_WORLD,
                  &join->sends[join->send_count++]);
        MPI_Irecv(join->members, size, MPI_INT, join->id.root, tag(join, TAG_LIST), MPI_COMM_WORLD, &join->receive);
    }
    return join;
}

/* The root: one member has come. */
static void enter(nccl_join *join)
{
    hello *h = &join->theirs;
    if (h->nonce != join->id.nonce) shim_misuse(NCCL_SHIM, "rank %d of the world joins with another id", h->world_rank);
    if (h->size != join->size)
        shim_misuse(NCCL_SHIM, "rank %d says that the communicator has %d ranks, rank %d says %d", h->rank, h->size,
                    join->rank, join->size);
    if (join->members[h->rank] >= 0) shim_misuse(NCCL_SHIM, "two processes join as rank %d", h->rank);
    join->members[h->rank] = h->world_rank;
    join->came++;
}

static MPI_Comm create(const nccl_join *join)
{
    MPI_Group world, group;
    MPI_Comm comm;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_incl(world, join->size, join->members, &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, tag(join, 0), &comm);
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    return comm;
}

static void join_free(nccl_join *join)
{
    free(join->members);
    free(join->sends);
    free(join);
}

bool nccl_join_poll(nccl_join *join, MPI_Comm *comm)
{
    *comm = MPI_COMM_NULL;
    if (join->size > 1) {
        int done;
        while (join->is_root && join->came < join->size) {
            MPI_Test(&join->receive, &done, MPI_STATUS_IGNORE);
            if (!done) return false;
            enter(join);
            if (join->came < join->size) await_hello(join);
        }
        if (join->is_root && !join->is_sent) {
            for (int i = 0; i < join->size; i++)
                if (i != join->rank)
                    MPI_Isend(join->members, join->size, MPI_INT, join->members[i], tag(join, TAG_LIST), MPI_COMM_WORLD,
                              &join->sends[join->send_count++]);
            join->is_sent = true;
        }
        if (!join->is_root && !join->has_list) {
            MPI_Test(&join->receive, &done, MPI_STATUS_IGNORE);
            if (!done) return false;
            join->has_list = true;
        }
        MPI_Testall(join->send_count, join->sends, &done, MPI_STATUSES_IGNORE);
        if (!done) return false;
        *comm = create(join);
    }
    join_free(join);
    return true;
}

void nccl_join_cancel(nccl_join *join)
{
    if (join->receive != MPI_REQUEST_NULL) {
        MPI_Cancel(&join->receive);
        MPI_Request_free(&join->receive);
    }
    /* a message that nobody receives keeps its buffer: the few bytes stay allocated */
    int done = 1;
    if (join->send_count) MPI_Testall(join->send_count, join->sends, &done, MPI_STATUSES_IGNORE);
    if (done) join_free(join);
}
