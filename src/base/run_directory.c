/* The names of a run's directories. */
#include "fb3/run_directory.h"

#include "fb3/file.h"

#include <dirent.h>
#include <stdlib.h>

enum { NAME_BYTES = 32 };

char *fb3_fold_path(const char *run_directory, int fold, const char *name)
{
    char folder_name[NAME_BYTES];
    snprintf(folder_name, sizeof folder_name, "fold-%d", fold);
    char *folder = fb3_path_join(run_directory, folder_name);
    if (!folder || !name) return folder;
    char *path = fb3_path_join(folder, name);
    free(folder);
    return path;
}

char *fb3_seed_path(const char *directory, int64_t seed)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "seed-%lld", (long long)seed);
    return fb3_path_join(directory, name);
}

bool fb3_run_directory_exists(const char *directory)
{
    char *path = fb3_path_join(directory, "run.yaml");
    const bool there = path && fb3_file_exists(path);
    free(path);
    return there;
}

static int by_number(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The seeds among the names of `directory`, ascending. Caller frees *seed. */
static fb3_status find_seeds(const char *directory, int64_t **seed, int *count)
{
    fb3_status status = FB3_OK;
    DIR *entries = opendir(directory);
    *seed = NULL;
    *count = 0;
    for (const struct dirent *entry; entries && (entry = readdir(entries));) {
        long long number;
        int end = 0;
        if (sscanf(entry->d_name, "seed-%lld%n", &number, &end) < 1 || entry->d_name[end]) continue;
        int64_t *more = reallocarray(*seed, (size_t)*count + 1, sizeof **seed);
        FB3_REQUIRE_GOTO(more, done, FB3_FAILED, "out of memory for the runs of %s", directory);
        *seed = more;
        more[(*count)++] = number;
    }
    if (*count > 0) qsort(*seed, (size_t)*count, sizeof **seed, by_number);
done:
    if (entries) closedir(entries);
    return status;
}

fb3_status fb3_run_directories_add(fb3_strings *runs, const char *directory)
{
    const int before = runs->count;
    int64_t *seed = NULL;
    int count = 0;
    fb3_status status = fb3_run_directory_exists(directory) ? FB3_OK : find_seeds(directory, &seed, &count);
    for (int i = 0; status == FB3_OK && i < count; i++) {
        char *path = fb3_seed_path(directory, seed[i]);
        if (!path)
            status = fb3_fail(FB3_FAILED, "out of memory for the runs of %s", directory);
        else if (fb3_run_directory_exists(path))
            status = fb3_strings_add(runs, path);
        free(path);
    }
    free(seed);
    FB3_TRY(status);
    return runs->count > before ? FB3_OK : fb3_strings_add(runs, directory);
}

fb3_status fb3_run_directories_given(fb3_strings *runs, const fb3_config *config)
{
    const fb3_strings *given = &config->arguments;
    if (given->count == 0) return fb3_run_directories_add(runs, config->output_dir);
    for (int i = 0; i < given->count; i++) FB3_TRY(fb3_run_directories_add(runs, given->item[i]));
    return FB3_OK;
}
