/* A model directory as W&B keeps it: the digests of an artifact's manifest.
 *
 * The digest of a file is the base64 of its MD5; that of the artifact is the MD5 of "wandb-artifact-manifest-v1" and
 * every "path:digest", a line each, in the order of the paths. */
#ifndef FB3_ARTIFACT_H
#define FB3_ARTIFACT_H

#include "fb3/hash.h"
#include <stdint.h>

typedef struct fb3_artifact_file {
    char *name; /* in the directory */
    char digest[FB3_MD5_BASE64];
    int64_t bytes;
} fb3_artifact_file;

typedef struct fb3_artifact {
    fb3_artifact_file *file; /* by name */
    int count;
    char digest[FB3_MD5_HEX];
} fb3_artifact;

/* Reads every file of the directory; directories in it are not entered. On failure there is nothing to free. */
fb3_status fb3_artifact_read(fb3_artifact *artifact, const char *directory);
void fb3_artifact_free(fb3_artifact *artifact);

/* Writes <directory>/wandb_manifest.json: the digests of all its other files, in the form of W&B's manifests. It
 * travels with the artifact, so that a download can be checked without W&B. */
fb3_status fb3_artifact_write_manifest(const char *directory);
/* Compares the directory with its wandb_manifest.json. FB3_OK where there is none; FB3_INPUT naming the first file that
 * is missing or differs. */
fb3_status fb3_artifact_check(const char *directory);

#endif
