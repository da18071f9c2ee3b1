/* What the program says to a person. Only world rank 0 speaks, and the first rank of each group of ranks (fb3/comm.h);
 * warnings and information go to standard error, tables and results of a verb to standard output. */
#ifndef FB3_LOG_H
#define FB3_LOG_H

#include <stdbool.h>
#include <stddef.h>

/* Says who this process is; called once, after MPI start-up. `host` is copied. Before it: rank 0, no host. */
void fb3_log_identity(int rank, int size, const char *host);
bool fb3_log_speaks(void); /* true on world rank 0, and after fb3_log_group() */
/* This rank speaks for a group that world rank 0 is not in. */
void fb3_log_group(int group);

/* One line on standard error from a rank that speaks: "fb3-dist: ..." and "fb3-dist: warning: ...". Thread safe. */
void fb3_log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fb3_log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line as it is, without "fb3-dist: " and without a word to the listener. Thread safe. */
void fb3_log_write(const char *line);

/* Every line of fb3_log_info(), _warn() and _error(), without its newline, is handed to `listener` too, on the thread
 * that said it: one listener at a time, NULL: none. Other lines that a person is told (progress) are handed on by
 * fb3_log_overhear(). */
typedef void (*fb3_log_listener)(void *context, const char *line);
void fb3_log_listen(fb3_log_listener listener, void *context);
void fb3_log_overhear(const char *line);

/* A live block on a terminal that several ranks write to: the foot, lines below all others. Its keeper draws it and
 * leaves the cursor on the empty line above it, so that whatever anybody else writes is never erased: the next drawing
 * begins where the cursor is then. Every rank that knows of the foot clears it before a line of its own. */
void fb3_log_has_foot(void); /* from now on there may be one on this terminal */
/* Draws the foot, `lines` lines that end with a newline each, in place of the one before; NULL takes it away. On its
 * keeper only. Nothing after fb3_log_error(). */
void fb3_log_foot(const char *text, int lines);
/* Takes it away for good; may be called by a signal handler. */
void fb3_log_drop_foot(void);

/* The last words of a process, from any rank: "fb3-dist: [rank 3 node07] what; what to do". The bracket is left out
 * in a world of one. */
void fb3_log_error(const char *text);

#endif
