/* The files beside a transaction log. W&B's programs find a run by the name of its directory. */
#include "wandb.h"

#include "fb3/file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { FOLDER_MODE = 0777, TIME_BYTES = 32, TRIES = 60 };

fb3_status fb3_wandb_random_name(char *name, int count)
{
    static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    enum {
        KINDS = sizeof LETTERS - 1,
        FAIR = 256 / KINDS * KINDS
    }; /* bytes above are drawn again: no letter twice as often */
    for (int i = 0; i < count;) {
        unsigned char byte;
        FB3_REQUIRE(getrandom(&byte, 1, 0) == 1, FB3_FAILED, "the system has no random numbers: %s", strerror(errno));
        if (byte < FAIR) name[i++] = LETTERS[byte % KINDS];
    }
    name[count] = 0;
    return FB3_OK;
}

/* Two starts in one second are told apart by the second that the name says. */
static fb3_status make_new(fb3_wandb *w)
{
    time_t second = (time_t)w->start_time;
    for (int i = 0; i < TRIES; i++, second++) {
        char text[TIME_BYTES];
        struct tm local;
        localtime_r(&second, &local);
        strftime(text, sizeof text, "%Y%m%d_%H%M%S", &local);
        free(w->directory);
        w->directory = fb3_format("%s/offline-run-%s-%s", w->root, text, w->id);
        FB3_REQUIRE(w->directory, FB3_FAILED, "out of memory for the run's directory");
        if (mkdir(w->directory, FOLDER_MODE) == 0) return FB3_OK;
        FB3_REQUIRE(errno == EEXIST, FB3_FAILED, "cannot make %s: %s", w->directory, strerror(errno));
    }
    return fb3_fail(FB3_FAILED, "cannot make %s: it is there already", w->directory);
}

/* wandb/latest-run is what W&B's programs open when nothing is named. Not every file system has links. */
static void link_latest(const fb3_wandb *w)
{
    char *link = fb3_path_join(w->root, "latest-run"), *temporary = link ? fb3_format("%s.%s", link, w->id) : NULL;
    const char *name = strrchr(w->directory, '/') + 1;
    if (temporary && symlink(name, temporary) == 0 && rename(temporary, link) != 0) (void)unlink(temporary);
    free(link);
    free(temporary);
}

fb3_status fb3_wandb_make_directory(fb3_wandb *w)
{
    FB3_TRY(fb3_folder_make(w->root));
    FB3_TRY(make_new(w));
    w->files = fb3_path_join(w->directory, "files");
    FB3_REQUIRE(w->files, FB3_FAILED, "out of memory for the run's directory");
    FB3_TRY(fb3_folder_make(w->files));
    link_latest(w);
    return FB3_OK;
}

static fb3_status write_text(const fb3_wandb *w, const char *name, const char *text)
{
    char *path = fb3_path_join(w->files, name);
    fb3_status status = path && text ? fb3_file_write(path, text, strlen(text)) : fb3_fail(FB3_FAILED, "out of memory");
    free(path);
    return status;
}

/* Takes the reference to `object`. */
static fb3_status write_json(const fb3_wandb *w, const char *name, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    fb3_status status = write_text(w, name, text);
    free(text);
    return status;
}

/* "key": {"value": ...}, a line each: JSON is YAML. */
fb3_status fb3_wandb_write_config_file(const fb3_wandb *w, const json_t *config)
{
    char *text = NULL;
    size_t bytes = 0;
    const char *key;
    json_t *value;
    FILE *out = open_memstream(&text, &bytes);
    FB3_REQUIRE(out, FB3_FAILED, "out of memory for config.yaml");
    json_object_foreach((json_t *)config, key, value)
    {
        char *json = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        fprintf(out, "%s:\n    value: %s\n", key, json ? json : "null");
        free(json);
    }
    bool written = !ferror(out);
    fb3_status status =
        fclose(out) == 0 && written ? write_text(w, "config.yaml", text) : fb3_fail(FB3_FAILED, "out of memory");
    free(text);
    return status;
}

static void format_time(double time, char text[TIME_BYTES])
{
    time_t seconds = (time_t)time;
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(text, TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* Nothing of the environment, no path: only what the machine is. */
fb3_status fb3_wandb_write_metadata_file(const fb3_wandb *w, const char *device, const char *commit)
{
    struct utsname name;
    struct sysinfo memory;
    char started[TIME_BYTES], os[2 * sizeof name.sysname + 2] = "", total[TIME_BYTES] = "";
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    format_time(w->start_time, started);
    if (uname(&name) == 0) snprintf(os, sizeof os, "%s-%s", name.sysname, name.release);
    if (sysinfo(&memory) == 0)
        snprintf(total, sizeof total, "%llu", (unsigned long long)memory.totalram * memory.mem_unit);
    json_t *metadata = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:{s:s}}", "os", os, "host", w->host, "startedAt",
                                 started, "program", "fb3-dist " FB3_VERSION, "device", device, "cpu_count",
                                 (json_int_t)cores, "cpu_count_logical", (json_int_t)cores, "memory", "total", total);
    if (metadata && commit[0]) json_object_set_new(metadata, "git", json_pack("{s:s}", "commit", commit));
    return write_json(w, "wandb-metadata.json", metadata);
}

fb3_status fb3_wandb_write_summary_file(const fb3_wandb *w)
{
    return write_json(w, "wandb-summary.json", json_incref(w->summary));
}
