/* Is there a person who sees lines redrawn, and how wide is what they look at. */
#include "fb3/progress.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { USUAL_WIDTH = 80, USUAL_ROWS = 24, LEAST_WIDTH = 20, MOST_WIDTH = 1000 };

static bool set(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value;
}

/* What mpirun does to the lines that it passes on: with a name in front of each, or in files, nothing can be redrawn.
 */
static bool launcher_changes_lines(void)
{
    static const char *const VARIABLES[] = {"OMPI_MCA_orte_tag_output", "OMPI_MCA_orte_timestamp_output",
                                            "OMPI_MCA_orte_xml_output", "OMPI_MCA_orte_output_filename"};
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++)
        if (set(VARIABLES[i])) return true;
    return false;
}

/* mpirun gives its ranks pipes, and writes to its own streams what comes out of them: the terminal is its. */
static int open_launchers(int stream)
{
    struct stat about;
    char path[64];
    if (!set("OMPI_COMM_WORLD_RANK") || launcher_changes_lines()) return -1;
    if (fstat(stream, &about) != 0 || !S_ISFIFO(about.st_mode)) return -1;
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getppid(), stream);
    if (stat(path, &about) != 0 || !S_ISCHR(about.st_mode)) return -1;
    return open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
}

fb3_terminal fb3_terminal_find(int stream)
{
    fb3_terminal terminal = {.file = -1};
    const char *kind = getenv("TERM");
    if (!kind || !*kind || strcmp(kind, "dumb") == 0) return terminal;
    terminal.file = isatty(stream) ? fcntl(stream, F_DUPFD_CLOEXEC, 0) : open_launchers(stream);
    if (terminal.file >= 0 && !isatty(terminal.file)) fb3_terminal_close(&terminal);
    terminal.colour = terminal.file >= 0 && !set("NO_COLOR");
    return terminal;
}

void fb3_terminal_close(fb3_terminal *terminal)
{
    if (terminal->file >= 0) close(terminal->file);
    terminal->file = -1;
}

static int from_environment(const char *variable, int usual)
{
    const char *text = getenv(variable);
    int value = text ? atoi(text) : 0;
    return value > 0 ? value : usual;
}

static int within_reason(int width)
{
    if (width < LEAST_WIDTH) return LEAST_WIDTH;
    return width > MOST_WIDTH ? MOST_WIDTH : width;
}

int fb3_terminal_width(const fb3_terminal *terminal)
{
    struct winsize size;
    bool known = terminal->file >= 0 && ioctl(terminal->file, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return within_reason(known ? size.ws_col : from_environment("COLUMNS", USUAL_WIDTH));
}

int fb3_terminal_rows(const fb3_terminal *terminal)
{
    struct winsize size;
    bool known = terminal->file >= 0 && ioctl(terminal->file, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
    return known ? size.ws_row : from_environment("LINES", USUAL_ROWS);
}

void fb3_terminal_settle(int stream)
{
    enum { TRIES = 200 };
    const struct timespec moment = {.tv_nsec = 1000000};
    struct stat about;
    if (fstat(stream, &about) != 0 || !S_ISFIFO(about.st_mode)) return;
    for (int i = 0, left = 0; i < TRIES && ioctl(stream, FIONREAD, &left) == 0 && left > 0; i++)
        nanosleep(&moment, NULL);
}
