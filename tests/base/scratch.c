/* Each test program works in a folder of its own. */
#include "base/scratch.h"

#include "fb3/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/fb3-config-XXXXXX";

int scratch_enter(void **state)
{
    (void)state;
    unsetenv("FB3_CONFIG");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

int scratch_leave(void **state)
{
    (void)state;
    return chdir("/") == 0 && fb3_folder_remove(folder) == FB3_OK ? 0 : -1;
}

void scratch_write(const char *name, const char *text)
{
    if (fb3_file_write(name, text, strlen(text)) != FB3_OK) abort();
}

fb3_status scratch_parse(fb3_config *config, const char *const *words)
{
    enum { MOST_WORDS = 64 };
    char *argv[MOST_WORDS + 1] = {"fb3-dist"};
    int argc = 1;
    for (; words[argc - 1] && argc < MOST_WORDS; argc++) argv[argc] = (char *)words[argc - 1];
    return fb3_config_parse(config, argc, argv);
}
