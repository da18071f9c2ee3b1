/* A standard stream sent to an unnamed temporary file and back. */
#include "base/capture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
    int descriptor, saved;
    FILE *file;
} capture;

void capture_begin(int descriptor)
{
    fflush(NULL);
    capture.descriptor = descriptor;
    capture.saved = dup(descriptor);
    capture.file = tmpfile();
    if (!capture.file || capture.saved < 0 || dup2(fileno(capture.file), descriptor) < 0) abort();
}

char *capture_end(void)
{
    fflush(NULL);
    if (dup2(capture.saved, capture.descriptor) < 0) abort();
    close(capture.saved);
    off_t bytes = lseek(fileno(capture.file), 0, SEEK_END);
    char *text = calloc((size_t)bytes + 1, 1);
    if (!text || pread(fileno(capture.file), text, (size_t)bytes, 0) != bytes) abort();
    fclose(capture.file);
    return text;
}
