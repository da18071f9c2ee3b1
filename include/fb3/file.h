/* Files that are either complete or not there (DESIGN 5.2): write to a temporary name in the same folder, flush,
 * fsync, rename, fsync the folder. */
#ifndef FB3_FILE_H
#define FB3_FILE_H

#include "fb3/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The temporary name for `path`: "<path>.tmp". One writer per path is a rule of the program (group rank 0; pages are
 * the exception, fb3_file_write_shared()), so one name is enough, and a temporary left by a killed run is overwritten
 * by the next. Caller frees. NULL: out of memory. */
char *fb3_file_temporary(const char *path);

/* Removes the temporaries that killed writers left in `folder`: of the file `name`, or of any (NULL, in a folder that
 * is the program's alone). Nobody may be writing there now. What cannot be removed stays, and does no harm. */
void fb3_file_remove_temporaries(const char *folder, const char *name);

/* fsync `temporary`, rename it to `path`, fsync the folder. On failure the temporary is removed and `path` is as it
 * was. */
fb3_status fb3_file_publish(const char *temporary, const char *path);

/* Writes `bytes` bytes as the whole content of `path`, atomically. */
fb3_status fb3_file_write(const char *path, const void *data, size_t bytes);

/* The same without fsync, for what is written often and may be lost when the machine crashes. */
fb3_status fb3_file_write_lightly(const char *path, const void *data, size_t bytes);

/* fb3_file_write() for a path that several processes may write at the same moment (a run and its user's `report`): each
 * has a temporary of its own, and the last rename stays. A killed writer's temporary waits for
 * fb3_file_remove_temporaries(). */
fb3_status fb3_file_write_shared(const char *path, const void *data, size_t bytes);

/* Reads a whole file into a malloc'ed buffer with a 0 byte behind it. FB3_INPUT when it cannot be opened or is larger
 * than `limit`. Caller frees *data. */
fb3_status fb3_file_read(const char *path, size_t limit, char **data, size_t *bytes);

bool fb3_file_exists(const char *path);   /* a regular file that can be read */
bool fb3_folder_exists(const char *path); /* a directory */

/* Takes `path` (made if it is not there) as a lock that lives until fb3_file_unlock or the end of the process, however
 * it ends. Waits up to `seconds` for another holder, then FB3_INPUT. Where the file system has no locks there is a
 * warning and no protection. */
fb3_status fb3_file_lock(const char *path, int seconds, int *lock);
void fb3_file_unlock(int lock); /* -1 is fine */
/* Whether a process holds that lock; nothing waits for the answer or is changed by it. Unknown: where the file system
 * has no locks, or the file cannot be opened. A file system may keep the locks of each node to itself. */
typedef enum fb3_lock_state { FB3_LOCK_FREE, FB3_LOCK_HELD, FB3_LOCK_UNKNOWN } fb3_lock_state;
fb3_lock_state fb3_file_lock_look(const char *path);

/* mkdir -p. */
fb3_status fb3_folder_make(const char *path);

/* rm -r; a folder that is not there is fine. Links are removed, not followed. */
fb3_status fb3_folder_remove(const char *path);

/* printf into a malloc'ed string; NULL when out of memory. Caller frees. */
char *fb3_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "folder/name". Caller frees. */
char *fb3_path_join(const char *folder, const char *name);

#endif
