/* What a rank does while it starts, for test_start.py: preloaded, it counts the program's calls of MPI (by MPI's
 * profiling interface) and the files that it opens. At the end rank R writes $FB3_COUNT_DIR/R: a line "name count" for
 * each call, a line "open count path" for each file. */
#include <dlfcn.h>
#include <fcntl.h>
#include <mpi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLS = 32, FILES = 8192, PATH_BYTES = 512, SUMS = 4096 };

static struct {
    const char *name;
    long count;
} calls[CALLS];

static struct {
    char path[PATH_BYTES];
    long count;
} files[FILES];
static int files_known;
static int sums[SUMS];
static int sums_known;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the I/O worker opens files, too */

static void count_call(const char *name)
{
    int i = 0;
    while (i < CALLS - 1 && calls[i].name && strcmp(calls[i].name, name) != 0) i++;
    calls[i].name = name;
    calls[i].count++;
}

static void count_file(const char *path)
{
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < files_known && strncmp(files[i].path, path, PATH_BYTES - 1) != 0) i++;
    if (i == files_known && i < FILES) strncpy(files[files_known++].path, path, PATH_BYTES - 1);
    if (i < FILES) files[i].count++;
    pthread_mutex_unlock(&lock);
}

/* --- calls of MPI ------------------------------------------------------------------------------------------------- */

#define COUNTED(name, parameters, arguments)                                                                           \
    int MPI_##name parameters                                                                                          \
    {                                                                                                                  \
        count_call(#name);                                                                                             \
        return PMPI_##name arguments;                                                                                  \
    }

#define MESSAGE_OUT (const void *data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm)
#define MESSAGE_OUT_LATER                                                                                              \
    (const void *data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request *request)
COUNTED(Send, MESSAGE_OUT, (data, count, type, peer, tag, comm))
COUNTED(Ssend, MESSAGE_OUT, (data, count, type, peer, tag, comm))
COUNTED(Isend, MESSAGE_OUT_LATER, (data, count, type, peer, tag, comm, request))
COUNTED(Issend, MESSAGE_OUT_LATER, (data, count, type, peer, tag, comm, request))

COUNTED(Barrier, (MPI_Comm comm), (comm))
COUNTED(Ibarrier, (MPI_Comm comm, MPI_Request *request), (comm, request))
COUNTED(Bcast, (void *data, int count, MPI_Datatype type, int root, MPI_Comm comm), (data, count, type, root, comm))
COUNTED(Ibcast, (void *data, int count, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request *request),
        (data, count, type, root, comm, request))
COUNTED(Allreduce, (const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
        (from, to, count, type, op, comm))
int MPI_Iallreduce(const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
                   MPI_Request *request)
{
    count_call("Iallreduce");
    if (sums_known < SUMS) sums[sums_known++] = count;
    return PMPI_Iallreduce(from, to, count, type, op, comm, request);
}
COUNTED(Allgather,
        (const void *from, int sent, MPI_Datatype out, void *to, int received, MPI_Datatype in, MPI_Comm comm),
        (from, sent, out, to, received, in, comm))
COUNTED(Iallgather,
        (const void *from, int sent, MPI_Datatype out, void *to, int received, MPI_Datatype in, MPI_Comm comm,
         MPI_Request *request),
        (from, sent, out, to, received, in, comm, request))
COUNTED(Alltoall,
        (const void *from, int sent, MPI_Datatype out, void *to, int received, MPI_Datatype in, MPI_Comm comm),
        (from, sent, out, to, received, in, comm))
COUNTED(Comm_dup, (MPI_Comm comm, MPI_Comm *made), (comm, made))
COUNTED(Comm_idup, (MPI_Comm comm, MPI_Comm *made, MPI_Request *request), (comm, made, request))
COUNTED(Comm_split, (MPI_Comm comm, int color, int key, MPI_Comm *made), (comm, color, key, made))
COUNTED(Comm_split_type, (MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *made),
        (comm, type, key, info, made))
COUNTED(Win_allocate_shared, (MPI_Aint size, int unit, MPI_Info info, MPI_Comm comm, void *base, MPI_Win *made),
        (size, unit, info, comm, base, made))

static void write_counts(int rank)
{
    char path[PATH_BYTES];
    const char *folder = getenv("FB3_COUNT_DIR");
    if (!folder) return;
    snprintf(path, sizeof path, "%s/%d", folder, rank);
    int known = files_known; /* not the one that follows */
    FILE *out = fopen(path, "w");
    if (!out) return;
    for (int i = 0; i < CALLS && calls[i].name; i++) fprintf(out, "%s %ld\n", calls[i].name, calls[i].count);
    for (int i = 0; i < known; i++) fprintf(out, "open %ld %s\n", files[i].count, files[i].path);
    for (int i = 0; i < sums_known; i++) fprintf(out, "sum %d\n", sums[i]);
    fclose(out);
}

int MPI_Finalize(void)
{
    int rank = 0;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    write_counts(rank);
    return PMPI_Finalize();
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static void *next_of(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))next_of(#name);                         \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;                                              \
        va_end(more);                                                                                                  \
        count_file(path);                                                                                              \
        return next(path, flags, mode);                                                                                \
    }
#define FOPEN(name)                                                                                                    \
    FILE *name(const char *path, const char *mode)                                                                     \
    {                                                                                                                  \
        FILE *(*next)(const char *, const char *) = (FILE * (*)(const char *, const char *)) next_of(#name);           \
        count_file(path);                                                                                              \
        return next(path, mode);                                                                                       \
    }
OPEN(open)
OPEN(open64)
FOPEN(fopen)
FOPEN(fopen64)
