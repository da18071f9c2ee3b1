/* The commit that is checked out, read from .git: no program is started for it. */
#ifndef FB3_TRACK_GIT_H
#define FB3_TRACK_GIT_H

#include <stdbool.h>

enum { FB3_COMMIT_BYTES = 65 }; /* 40 or 64 hex digits and the terminating 0 */

/* Of the working tree that `directory` is in; false and "" where there is none, or no commit yet. */
bool fb3_git_commit(const char *directory, char commit[FB3_COMMIT_BYTES]);

#endif
