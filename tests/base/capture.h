/* What the program writes to a standard stream, as text. */
#ifndef TESTS_BASE_CAPTURE_H
#define TESTS_BASE_CAPTURE_H

/* Sends descriptor `descriptor` (STDOUT_FILENO or STDERR_FILENO) to a temporary file. One at a time. */
void capture_begin(int descriptor);
/* Puts the descriptor back and returns what was written. Caller frees. */
char *capture_end(void);

#endif
