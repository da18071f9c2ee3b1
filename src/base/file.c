/* Files that are either complete or not there, and small helpers for paths. */
#include "fb3/file.h"
#include "fb3/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char TEMPORARY[] = ".tmp";

enum { FOLDER_MODE = 0777, FILE_MODE = 0666 }; /* before the umask */

/* A path that cannot be used is the user's to mend; a disk that is full or broken is not. */
static fb3_status at_fault(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
    case ELOOP:
    case ENAMETOOLONG:
        return FB3_INPUT;
    default:
        return FB3_FAILED;
    }
}

/* What the user is to do about it. */
static const char *cure_of(int error)
{
    return at_fault(error) == FB3_INPUT ? "check the path and its permissions" : "check the file system and its space";
}

char *fb3_format(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return length < 0 ? NULL : text;
}

char *fb3_path_join(const char *folder, const char *name)
{
    size_t length = strlen(folder);
    const char *slash = length > 0 && folder[length - 1] == '/' ? "" : "/";
    return fb3_format("%s%s%s", folder, slash, name);
}

char *fb3_file_temporary(const char *path)
{
    return fb3_format("%s%s", path, TEMPORARY);
}

/* "<name>.tmp", "<name>.<anything>.tmp" */
static bool is_temporary_of(const char *entry, const char *name)
{
    const size_t bytes = strlen(entry), suffix = sizeof TEMPORARY - 1, length = name ? strlen(name) : 0;
    if (bytes < length + suffix || strcmp(entry + bytes - suffix, TEMPORARY) != 0) return false;
    return !name || (strncmp(entry, name, length) == 0 && entry[length] == '.');
}

void fb3_file_remove_temporaries(const char *folder, const char *name)
{
    DIR *entries = opendir(folder);
    for (const struct dirent *entry; entries && (entry = readdir(entries));)
        if (is_temporary_of(entry->d_name, name)) (void)unlinkat(dirfd(entries), entry->d_name, 0);
    if (entries) closedir(entries);
}

bool fb3_file_exists(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISREG(about.st_mode) && access(path, R_OK) == 0;
}

bool fb3_folder_exists(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* Opens the folder that holds `path`; -1 with errno. */
static int open_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t length = slash == path ? 1 : (size_t)(slash - path);
    char *parent = strndup(path, length);
    if (!parent) return -1;
    int folder = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(parent);
    return folder;
}

static bool sync_path(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    bool synced = fsync(file) == 0;
    int error = errno;
    close(file);
    errno = error;
    return synced;
}

fb3_status fb3_file_publish(const char *temporary, const char *path)
{
    fb3_status status = FB3_OK;
    bool renamed = false;
    int folder = open_parent(path);
    FB3_REQUIRE_GOTO(folder >= 0, done, at_fault(errno), "cannot open the folder of %s: %s; check the path", path,
                     strerror(errno));
    FB3_REQUIRE_GOTO(sync_path(temporary), done, FB3_FAILED, "cannot flush %s: %s; check the file system and its space",
                     temporary, strerror(errno));
    FB3_REQUIRE_GOTO(rename(temporary, path) == 0, done, at_fault(errno), "cannot rename %s to %s: %s; %s", temporary,
                     path, strerror(errno), cure_of(errno));
    renamed = true;
    /* Some network file systems have no fsync for folders and say EINVAL: their rename is durable by itself. */
    FB3_REQUIRE_GOTO(fsync(folder) == 0 || errno == EINVAL, done, FB3_FAILED,
                     "cannot flush the folder of %s: %s; check the file system", path, strerror(errno));
done:
    if (!renamed) unlink(temporary);
    if (folder >= 0) close(folder);
    return status;
}

static fb3_status write_all(int file, const char *path, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t wrote = write(file, data, bytes);
        if (wrote < 0 && errno == EINTR) continue;
        FB3_REQUIRE(wrote > 0, FB3_FAILED, "cannot write %s: %s; check the file system and its space", path,
                    wrote < 0 ? strerror(errno) : "nothing was written");
        data += wrote;
        bytes -= (size_t)wrote;
    }
    return FB3_OK;
}

/* Without fsync: a reader sees the old content or the new one, and a machine that crashes may lose both. */
static fb3_status publish_lightly(const char *temporary, const char *path)
{
    if (rename(temporary, path) == 0) return FB3_OK;
    fb3_status status =
        fb3_fail(at_fault(errno), "cannot rename %s to %s: %s; %s", temporary, path, strerror(errno), cure_of(errno));
    unlink(temporary);
    return status;
}

/* Takes `temporary` (malloc'ed, or NULL: out of memory) over. */
static fb3_status write_file(const char *path, char *temporary, const void *data, size_t bytes,
                             fb3_status (*publish)(const char *temporary, const char *path))
{
    fb3_status status = FB3_OK;
    FB3_REQUIRE(temporary, FB3_FAILED, "out of memory to write %s; free memory and run again", path);
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
    FB3_REQUIRE_GOTO(file >= 0, done, at_fault(errno), "cannot write %s: %s; %s", path, strerror(errno),
                     cure_of(errno));
    status = write_all(file, path, data, bytes);
    /* Network file systems report a full disk as late as here. */
    if (close(file) != 0 && status == FB3_OK)
        status =
            fb3_fail(FB3_FAILED, "cannot write %s: %s; check the file system and its space", path, strerror(errno));
    if (status == FB3_OK)
        status = publish(temporary, path);
    else
        unlink(temporary);
done:
    free(temporary);
    return status;
}

fb3_status fb3_file_write(const char *path, const void *data, size_t bytes)
{
    return write_file(path, fb3_file_temporary(path), data, bytes, fb3_file_publish);
}

fb3_status fb3_file_write_lightly(const char *path, const void *data, size_t bytes)
{
    return write_file(path, fb3_file_temporary(path), data, bytes, publish_lightly);
}

fb3_status fb3_file_write_shared(const char *path, const void *data, size_t bytes)
{
    uint64_t mine;
    FB3_REQUIRE(getentropy(&mine, sizeof mine) == 0, FB3_FAILED, "cannot draw a name for a temporary of %s: %s", path,
                strerror(errno));
    return write_file(path, fb3_format("%s.%016" PRIx64 "%s", path, mine, TEMPORARY), data, bytes, fb3_file_publish);
}

static fb3_status read_all(int file, const char *path, char *data, size_t bytes)
{
    size_t have = 0;
    while (have < bytes) {
        ssize_t got = read(file, data + have, bytes - have);
        if (got < 0 && errno == EINTR) continue;
        FB3_REQUIRE(got > 0, FB3_FAILED, "cannot read %s: %s; check the file system", path,
                    got < 0 ? strerror(errno) : "it became shorter while it was read");
        have += (size_t)got;
    }
    return FB3_OK;
}

fb3_status fb3_file_read(const char *path, size_t limit, char **data, size_t *bytes)
{
    *data = NULL;
    *bytes = 0;
    /* O_NONBLOCK: opening a pipe by mistake must not wait for a writer. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    FB3_REQUIRE(file >= 0, FB3_INPUT, "cannot open %s: %s; check the path and its permissions", path, strerror(errno));
    fb3_status status = FB3_OK;
    char *content = NULL;
    struct stat about;
    FB3_REQUIRE_GOTO(fstat(file, &about) == 0, done, FB3_FAILED, "cannot examine %s: %s; check the file system", path,
                     strerror(errno));
    FB3_REQUIRE_GOTO(S_ISREG(about.st_mode), done, FB3_INPUT, "%s is not a regular file; give a file", path);
    FB3_REQUIRE_GOTO((size_t)about.st_size <= limit, done, FB3_INPUT,
                     "%s has %lld bytes, more than the %zu that such a file may have; check that it is the right file",
                     path, (long long)about.st_size, limit);
    size_t size = (size_t)about.st_size;
    content = malloc(size + 1);
    FB3_REQUIRE_GOTO(content, done, FB3_FAILED, "out of memory for the %zu bytes of %s; free memory and run again",
                     size, path);
    FB3_TRY_GOTO(read_all(file, path, content, size), done);
    content[size] = 0;
    *data = content;
    *bytes = size;
    content = NULL;
done:
    free(content);
    close(file);
    return status;
}

fb3_status fb3_folder_make(const char *path)
{
    FB3_REQUIRE(*path, FB3_INPUT, "a folder without a name cannot be made; give a path");
    char *partial = strdup(path);
    FB3_REQUIRE(partial, FB3_FAILED, "out of memory to make the folder %s; free memory and run again", path);
    fb3_status status = FB3_OK;
    for (char *end = partial; *end && status == FB3_OK;) {
        while (*end == '/') end++;
        while (*end && *end != '/') end++;
        char kept = *end;
        *end = 0;
        /* EEXIST may be the work of another rank at the same moment, and is fine where a folder is there now. */
        int error = mkdir(partial, FOLDER_MODE) == 0 ? 0 : errno;
        if (error && !fb3_folder_exists(partial))
            status = fb3_fail(at_fault(error), "cannot make the folder %s: %s; %s", partial, strerror(error),
                              cure_of(error));
        *end = kept;
    }
    free(partial);
    return status;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)about, (void)kind, (void)place;
    return remove(path);
}

fb3_status fb3_folder_remove(const char *path)
{
    enum { OPEN_FOLDERS = 16 }; /* of nftw, at a time */
    struct stat about;
    if (lstat(path, &about) != 0 && errno == ENOENT) return FB3_OK;
    FB3_REQUIRE(nftw(path, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) == 0, at_fault(errno),
                "cannot remove %s: %s; check its permissions", path, strerror(errno));
    return FB3_OK;
}

fb3_status fb3_file_lock(const char *path, int seconds, int *lock)
{
    enum { TRIES_PER_SECOND = 10 };
    const struct timespec pause = {.tv_nsec = 1000 * 1000 * 1000 / TRIES_PER_SECOND};
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    FB3_REQUIRE(*lock >= 0, at_fault(errno), "cannot open %s: %s; %s", path, strerror(errno), cure_of(errno));
    int result = flock(*lock, LOCK_EX | LOCK_NB);
    for (int i = 0; result != 0 && errno == EWOULDBLOCK && i < seconds * TRIES_PER_SECOND; i++) {
        nanosleep(&pause, NULL);
        result = flock(*lock, LOCK_EX | LOCK_NB);
    }
    if (result == 0) return FB3_OK;
    int error = errno;
    fb3_file_unlock(*lock);
    *lock = -1;
    FB3_REQUIRE(error != EWOULDBLOCK, FB3_INPUT,
                "another process holds %s: a run is at work in that directory; wait for it or end it", path);
    fb3_log_warn("%s cannot be locked (%s): take care that only one run works in that directory", path,
                 strerror(error));
    return FB3_OK;
}

fb3_lock_state fb3_file_lock_look(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return errno == ENOENT ? FB3_LOCK_FREE : FB3_LOCK_UNKNOWN;
    int error = flock(file, LOCK_SH | LOCK_NB) == 0 ? 0 : errno;
    close(file);
    if (error == 0) return FB3_LOCK_FREE;
    return error == EWOULDBLOCK ? FB3_LOCK_HELD : FB3_LOCK_UNKNOWN;
}

void fb3_file_unlock(int lock)
{
    if (lock >= 0) close(lock);
}
