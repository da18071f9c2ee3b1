#include "fb3/artifact.h"
#include "fb3/file.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VERSION = 1, LARGEST_MANIFEST = 1 << 20 };

static const char MANIFEST[] = "wandb_manifest.json";
static const char DIGEST_HEAD[] = "wandb-artifact-manifest-v1\n";
static const char POLICY[] = "wandb-storage-policy-v1";

/* --- reading a directory ------------------------------------------------------------------------------------------ */

static fb3_status add_file(fb3_artifact *artifact, const char *path, const char *name)
{
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode)) return FB3_OK;
    fb3_artifact_file file = {.bytes = about.st_size};
    FB3_TRY(fb3_md5_file(path, file.digest));
    file.name = strdup(name);
    fb3_artifact_file *grown = realloc(artifact->file, ((size_t)artifact->count + 1) * sizeof *grown);
    if (grown) artifact->file = grown;
    if (!file.name || !grown) {
        free(file.name);
        return fb3_fail(FB3_FAILED, "out of memory for the files of an artifact");
    }
    artifact->file[artifact->count++] = file;
    return FB3_OK;
}

static fb3_status add_files(fb3_artifact *artifact, const char *directory, const char *except)
{
    fb3_status status = FB3_OK;
    DIR *folder = opendir(directory);
    FB3_REQUIRE(folder, FB3_FAILED, "cannot read %s: %s", directory, strerror(errno));
    for (const struct dirent *entry; status == FB3_OK && (entry = readdir(folder));) {
        if (except && strcmp(entry->d_name, except) == 0) continue;
        char *path = fb3_path_join(directory, entry->d_name);
        status = path ? add_file(artifact, path, entry->d_name) : fb3_fail(FB3_FAILED, "out of memory");
        free(path);
    }
    closedir(folder);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const fb3_artifact_file *)a)->name, ((const fb3_artifact_file *)b)->name);
}

static fb3_status digest_manifest(fb3_artifact *artifact)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    FB3_REQUIRE(out, FB3_FAILED, "out of memory for the digest of an artifact");
    fputs(DIGEST_HEAD, out);
    for (int i = 0; i < artifact->count; i++) fprintf(out, "%s:%s\n", artifact->file[i].name, artifact->file[i].digest);
    bool written = !ferror(out);
    fb3_status status = fclose(out) == 0 && written ? fb3_md5_memory(text, bytes, artifact->digest)
                                                    : fb3_fail(FB3_FAILED, "out of memory for an artifact's digest");
    free(text);
    return status;
}

static fb3_status read_except(fb3_artifact *artifact, const char *directory, const char *except)
{
    *artifact = (fb3_artifact){0};
    fb3_status status = add_files(artifact, directory, except);
    if (status == FB3_OK && artifact->count > 0)
        qsort(artifact->file, (size_t)artifact->count, sizeof *artifact->file, by_name);
    if (status == FB3_OK) status = digest_manifest(artifact);
    if (status != FB3_OK) fb3_artifact_free(artifact);
    return status;
}

fb3_status fb3_artifact_read(fb3_artifact *artifact, const char *directory)
{
    return read_except(artifact, directory, NULL);
}

void fb3_artifact_free(fb3_artifact *artifact)
{
    for (int i = 0; i < artifact->count; i++) free(artifact->file[i].name);
    free(artifact->file);
    *artifact = (fb3_artifact){0};
}

/* --- the manifest ------------------------------------------------------------------------------------------------- */

static json_t *manifest_json(const fb3_artifact *artifact)
{
    json_t *contents = json_object();
    for (int i = 0; i < artifact->count; i++) {
        const fb3_artifact_file *file = &artifact->file[i];
        json_object_set_new(contents, file->name,
                            json_pack("{s:s, s:I}", "digest", file->digest, "size", (json_int_t)file->bytes));
    }
    return json_pack("{s:i, s:s, s:{s:s}, s:o}", "version", VERSION, "storagePolicy", POLICY, "storagePolicyConfig",
                     "storageLayout", "V2", "contents", contents);
}

fb3_status fb3_artifact_write_manifest(const char *directory)
{
    fb3_artifact artifact;
    FB3_TRY(read_except(&artifact, directory, MANIFEST));
    json_t *manifest = manifest_json(&artifact);
    char *text = manifest ? json_dumps(manifest, JSON_INDENT(2)) : NULL, *path = fb3_path_join(directory, MANIFEST);
    fb3_status status = text && path ? fb3_file_write(path, text, strlen(text)) : fb3_fail(FB3_FAILED, "out of memory");
    json_decref(manifest);
    free(text);
    free(path);
    fb3_artifact_free(&artifact);
    return status;
}

/* A name that leads out of the directory is no file of it. */
static fb3_status check_file(const char *directory, const char *name, const char *expected)
{
    char digest[FB3_MD5_BASE64];
    FB3_REQUIRE(!strchr(name, '/') && expected, FB3_INPUT,
                "%s: %s names no file of it, or no digest; download it again", directory, MANIFEST);
    char *path = fb3_path_join(directory, name);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_md5_file(path, digest);
    free(path);
    FB3_TRY(status);
    FB3_REQUIRE(strcmp(digest, expected) == 0, FB3_INPUT,
                "%s/%s is not the file that %s describes: it is damaged or was changed; download the artifact again",
                directory, name, MANIFEST);
    return FB3_OK;
}

static fb3_status check_against(const char *directory, const char *text)
{
    fb3_status status = FB3_OK;
    const char *name;
    json_t *manifest = json_loads(text, 0, NULL), *entry;
    json_t *contents = json_object_get(manifest, "contents");
    if (!json_is_object(contents))
        status = fb3_fail(FB3_INPUT, "%s/%s is no manifest; download the artifact again", directory, MANIFEST);
    json_object_foreach(contents, name, entry)
    {
        if (status == FB3_OK) status = check_file(directory, name, json_string_value(json_object_get(entry, "digest")));
    }
    json_decref(manifest);
    return status;
}

fb3_status fb3_artifact_check(const char *directory)
{
    char *path = fb3_path_join(directory, MANIFEST), *text = NULL;
    size_t bytes;
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    bool there = fb3_file_exists(path);
    fb3_status status = there ? fb3_file_read(path, LARGEST_MANIFEST, &text, &bytes) : FB3_OK;
    free(path);
    if (status == FB3_OK && there) status = check_against(directory, text);
    free(text);
    return status;
}
