/* SHA-256 of memory and files (libcrypto), as 64 lower-case hex digits; and MD5, for those who ask for it by name. */
#ifndef FB3_HASH_H
#define FB3_HASH_H

#include "fb3/status.h"
#include <stddef.h>

#define FB3_SHA256_HEX 65 /* digits and the terminating 0 */

typedef struct fb3_sha256 fb3_sha256;

fb3_status fb3_sha256_begin(fb3_sha256 **hash);
void fb3_sha256_update(fb3_sha256 *hash, const void *data, size_t bytes);
/* Writes the digest and frees the hash. */
void fb3_sha256_end(fb3_sha256 *hash, char hex[FB3_SHA256_HEX]);

fb3_status fb3_sha256_memory(const void *data, size_t bytes, char hex[FB3_SHA256_HEX]);
/* FB3_INPUT when the file cannot be opened, FB3_FAILED when reading stops short. */
fb3_status fb3_sha256_file(const char *path, char hex[FB3_SHA256_HEX]);

#define FB3_MD5_HEX    33 /* digits and the terminating 0 */
#define FB3_MD5_BASE64 25

/* MD5 finds accidents, not attacks. FB3_FAILED where libcrypto's configuration forbids it. */
fb3_status fb3_md5_memory(const void *data, size_t bytes, char hex[FB3_MD5_HEX]);
fb3_status fb3_md5_file(const char *path, char base64[FB3_MD5_BASE64]);

#endif
