/* A checkpoint is a pair of files, and a pair cannot be renamed at once. The hash is therefore part of the name of the
 * hash file: the new one can be put beside the old one before the checkpoint itself changes, and whichever content
 * `path` has after a kill, its hash is on record.
 *
 *   1. <path>.<new>.sha256          written, flushed
 *   2. <previous>.<old>.sha256      written, flushed
 *   3. <previous>.tmp               a second name (hard link) of the old content
 *   4. <path>.tmp -> <path>         one rename: from here on the new checkpoint is the newest
 *   5. <previous>.tmp -> <previous>
 *   6. hash files of what is gone are removed
 *
 * Where the file system has no hard links, steps 3 to 5 are <path> -> <previous>, <path>.tmp -> <path>, after the old
 * content was verified. The hash files are in the format of sha256sum(1). */
#include "checkpoint_hash.h"
#include "fb3/checkpoint.h"
#include "fb3/file.h"
#include "fb3/hash.h"
#include "fb3/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEX_DIGITS = FB3_SHA256_HEX - 1 };

static const char SUFFIX[] = ".sha256";

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static char *folder_of(const char *path)
{
    const char *base = base_name(path);
    if (base == path) return strdup(".");
    return strndup(path, base - path > 1 ? (size_t)(base - path - 1) : 1);
}

/* The hash in <base>.<hash>.sha256, or NULL for another name. */
static const char *hash_in_name(const char *name, const char *base)
{
    size_t base_bytes = strlen(base);
    if (strncmp(name, base, base_bytes) != 0 || name[base_bytes] != '.') return NULL;
    const char *hex = name + base_bytes + 1;
    if (strspn(hex, "0123456789abcdef") != HEX_DIGITS || strcmp(hex + HEX_DIGITS, SUFFIX) != 0) return NULL;
    return hex;
}

static fb3_status hashes_add(fb3_hashes *hashes, const char *hex)
{
    char **grown = realloc(hashes->hex, ((size_t)hashes->count + 1) * sizeof *grown);
    FB3_REQUIRE(grown, FB3_FAILED, "out of memory for hashes");
    hashes->hex = grown;
    hashes->hex[hashes->count] = strndup(hex, HEX_DIGITS);
    FB3_REQUIRE(hashes->hex[hashes->count], FB3_FAILED, "out of memory for hashes");
    hashes->count++;
    return FB3_OK;
}

fb3_status fb3_hashes_find(fb3_hashes *hashes, const char *path)
{
    fb3_status status = FB3_OK;
    *hashes = (fb3_hashes){0};
    DIR *folder = NULL;
    char *folder_path = folder_of(path);
    FB3_REQUIRE_GOTO(folder_path, done, FB3_FAILED, "out of memory for hashes");
    folder = opendir(folder_path);
    FB3_REQUIRE_GOTO(folder, done, FB3_INPUT, "cannot open the folder of %s: %s; check the path", path,
                     strerror(errno));
    const struct dirent *entry;
    while ((entry = readdir(folder))) {
        const char *hex = hash_in_name(entry->d_name, base_name(path));
        if (hex) FB3_TRY_GOTO(hashes_add(hashes, hex), done);
    }
done:
    if (folder) closedir(folder);
    free(folder_path);
    if (status != FB3_OK) fb3_hashes_free(hashes);
    return status;
}

void fb3_hashes_free(fb3_hashes *hashes)
{
    for (int i = 0; i < hashes->count; i++) free(hashes->hex[i]);
    free(hashes->hex);
    *hashes = (fb3_hashes){0};
}

static bool hashes_have(const fb3_hashes *hashes, const char *hex)
{
    for (int i = 0; i < hashes->count; i++)
        if (strcmp(hashes->hex[i], hex) == 0) return true;
    return false;
}

static char *hash_path(const char *path, const char *hex)
{
    return fb3_format("%s.%s%s", path, hex, SUFFIX);
}

fb3_status fb3_hash_verify(const char *path, bool *on_record)
{
    fb3_hashes hashes = {0};
    char hex[FB3_SHA256_HEX];
    *on_record = false;
    FB3_REQUIRE(fb3_file_exists(path), FB3_INPUT, "there is no file %s that can be read; check the path", path);
    FB3_TRY(fb3_hashes_find(&hashes, path));
    fb3_status status = FB3_OK;
    *on_record = hashes.count > 0;
    if (*on_record) {
        status = fb3_sha256_file(path, hex);
        if (status == FB3_OK && !hashes_have(&hashes, hex))
            status = fb3_fail(FB3_INPUT,
                              "%s does not have the content of its hash file %s.%.8s...%s; it is damaged: use another "
                              "checkpoint, or copy it again",
                              path, path, hashes.hex[0], SUFFIX);
    }
    fb3_hashes_free(&hashes);
    return status;
}

/* --- publishing --------------------------------------------------------------------------------------------------- */

static fb3_status write_hash(const char *path, const char *hex)
{
    fb3_status status = FB3_OK;
    char *name = hash_path(path, hex), *line = fb3_format("%s  %s\n", hex, base_name(path));
    FB3_REQUIRE_GOTO(name && line, done, FB3_FAILED, "out of memory for the hash of %s", path);
    FB3_TRY_GOTO(fb3_file_write(name, line, strlen(line)), done);
done:
    free(name);
    free(line);
    return status;
}

/* Removes the hash files of `path` whose hash is not among `kept`. One that stays behind does no harm: it is tried
 * again next time. */
static void remove_hashes_except(const char *path, const fb3_hashes *kept)
{
    fb3_hashes found = {0};
    if (fb3_hashes_find(&found, path) != FB3_OK) return;
    for (int i = 0; i < found.count; i++) {
        char *name = hashes_have(kept, found.hex[i]) ? NULL : hash_path(path, found.hex[i]);
        if (name) (void)unlink(name);
        free(name);
    }
    fb3_hashes_free(&found);
}

/* Step 2. Without any hash on record for the old content there is nothing to write. */
static fb3_status write_hashes(const char *path, const fb3_hashes *hashes)
{
    for (int i = 0; i < hashes->count; i++) FB3_TRY(write_hash(path, hashes->hex[i]));
    return FB3_OK;
}

static bool has_no_hard_links(int error)
{
    return error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EMLINK || error == EXDEV;
}

/* Only what is complete may take the place of a checkpoint that is. */
static fb3_status move_to_previous(const char *path, const char *previous)
{
    bool on_record = false;
    if (fb3_hash_verify(path, &on_record) != FB3_OK) {
        fb3_log_warn("%s; it is not kept as %s", fb3_error_text(), previous);
        return FB3_OK;
    }
    FB3_REQUIRE(rename(path, previous) == 0, FB3_FAILED, "cannot rename %s to %s: %s; check the file system", path,
                previous, strerror(errno));
    return FB3_OK;
}

/* Steps 3 to 5. */
static fb3_status rotate(const char *temporary, const char *path, const char *previous)
{
    char *second_name = fb3_file_temporary(previous);
    FB3_REQUIRE(second_name, FB3_FAILED, "out of memory to write %s", path);
    fb3_status status = FB3_OK;
    (void)unlink(second_name);
    if (link(path, second_name) == 0) {
        status = fb3_file_publish(temporary, path);
        if (status == FB3_OK)
            status = fb3_file_publish(second_name, previous);
        else
            (void)unlink(second_name);
    } else if (has_no_hard_links(errno)) {
        status = move_to_previous(path, previous);
        if (status == FB3_OK) status = fb3_file_publish(temporary, path);
    } else {
        status =
            fb3_fail(FB3_FAILED, "cannot link %s to %s: %s; check the file system", path, second_name, strerror(errno));
    }
    free(second_name);
    return status;
}

fb3_status fb3_hash_publish(const char *temporary, const char *path, const char *previous)
{
    fb3_status status = FB3_OK;
    fb3_hashes old = {0}, new = {0};
    char hex[FB3_SHA256_HEX];
    bool keep_old = previous && fb3_file_exists(path);
    FB3_TRY_GOTO(fb3_sha256_file(temporary, hex), done);
    FB3_TRY_GOTO(hashes_add(&new, hex), done);
    FB3_TRY_GOTO(fb3_hashes_find(&old, path), done);
    FB3_TRY_GOTO(write_hash(path, hex), done);
    if (keep_old) {
        FB3_TRY_GOTO(write_hashes(previous, &old), done);
        FB3_TRY_GOTO(rotate(temporary, path, previous), done);
        remove_hashes_except(previous, &old);
    } else {
        FB3_TRY_GOTO(fb3_file_publish(temporary, path), done);
    }
    remove_hashes_except(path, &new);
done:
    fb3_hashes_free(&old);
    fb3_hashes_free(&new);
    return status;
}

fb3_status fb3_checkpoint_link(const char *path, const char *second)
{
    fb3_status status = FB3_OK;
    fb3_hashes hashes = {0};
    char *temporary = fb3_file_temporary(second);
    FB3_REQUIRE_GOTO(temporary, done, FB3_FAILED, "out of memory to link %s", path);
    FB3_TRY_GOTO(fb3_hashes_find(&hashes, path), done);
    FB3_TRY_GOTO(write_hashes(second, &hashes), done);
    (void)unlink(temporary);
    FB3_REQUIRE_GOTO(link(path, temporary) == 0, done, FB3_FAILED,
                     "cannot link %s to %s: %s; without hard links only save_total_limit: 1 works", path, second,
                     strerror(errno));
    status = fb3_file_publish(temporary, second);
done:
    fb3_hashes_free(&hashes);
    free(temporary);
    return status;
}

void fb3_checkpoint_remove(const char *path)
{
    const fb3_hashes none = {0};
    (void)unlink(path);
    remove_hashes_except(path, &none);
}
