/* SHA-256 and MD5 through libcrypto's EVP interface. */
#include "fb3/hash.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20, DIGEST_BYTES = 32, MD5_BYTES = 16 };

struct fb3_sha256 {
    EVP_MD_CTX *context;
};

static fb3_status begin(fb3_sha256 **hash, const EVP_MD *kind, const char *name)
{
    *hash = NULL;
    fb3_sha256 *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory for a hash; free memory and run again");
    made->context = EVP_MD_CTX_new();
    if (!made->context || EVP_DigestInit_ex(made->context, kind, NULL) != 1) {
        EVP_MD_CTX_free(made->context);
        free(made);
        return fb3_fail(FB3_FAILED, "libcrypto gives no %s; check the OpenSSL installation and its configuration",
                        name);
    }
    *hash = made;
    return FB3_OK;
}

fb3_status fb3_sha256_begin(fb3_sha256 **hash)
{
    return begin(hash, EVP_sha256(), "SHA-256");
}

void fb3_sha256_update(fb3_sha256 *hash, const void *data, size_t bytes)
{
    int updated = EVP_DigestUpdate(hash->context, data, bytes);
    assert(updated == 1);
    (void)updated;
}

static void end(fb3_sha256 *hash, unsigned char digest[EVP_MAX_MD_SIZE], unsigned int expected)
{
    unsigned int bytes = 0;
    int ended = EVP_DigestFinal_ex(hash->context, digest, &bytes);
    assert(ended == 1 && bytes == expected);
    (void)ended;
    (void)expected;
    EVP_MD_CTX_free(hash->context);
    free(hash);
}

static void write_hex(char *hex, const unsigned char *digest, int bytes)
{
    static const char DIGITS[] = "0123456789abcdef";
    for (int i = 0; i < bytes; i++) {
        hex[2 * i] = DIGITS[digest[i] >> 4];
        hex[2 * i + 1] = DIGITS[digest[i] & 15];
    }
    hex[2 * bytes] = 0;
}

void fb3_sha256_end(fb3_sha256 *hash, char hex[FB3_SHA256_HEX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    end(hash, digest, DIGEST_BYTES);
    write_hex(hex, digest, DIGEST_BYTES);
}

fb3_status fb3_md5_memory(const void *data, size_t bytes, char hex[FB3_MD5_HEX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    fb3_sha256 *hash;
    FB3_TRY(begin(&hash, EVP_md5(), "MD5"));
    fb3_sha256_update(hash, data, bytes);
    end(hash, digest, MD5_BYTES);
    write_hex(hex, digest, MD5_BYTES);
    return FB3_OK;
}

fb3_status fb3_sha256_memory(const void *data, size_t bytes, char hex[FB3_SHA256_HEX])
{
    fb3_sha256 *hash;
    FB3_TRY(fb3_sha256_begin(&hash));
    fb3_sha256_update(hash, data, bytes);
    fb3_sha256_end(hash, hex);
    return FB3_OK;
}

static fb3_status hash_descriptor(int file, const char *path, fb3_sha256 *hash)
{
    char *buffer = malloc(READ_BYTES);
    FB3_REQUIRE(buffer, FB3_FAILED, "out of memory to hash %s; free memory and run again", path);
    fb3_status status = FB3_OK;
    ssize_t got;
    while ((got = read(file, buffer, READ_BYTES)) != 0) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = fb3_fail(FB3_FAILED, "cannot read %s: %s; check the file system", path, strerror(errno));
            break;
        }
        fb3_sha256_update(hash, buffer, (size_t)got);
    }
    free(buffer);
    return status;
}

static fb3_status hash_file(const char *path, fb3_sha256 *hash)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    FB3_REQUIRE(file >= 0, FB3_INPUT, "cannot open %s: %s; check the path and its permissions", path, strerror(errno));
    struct stat about;
    fb3_status status;
    if (fstat(file, &about) == 0 && S_ISDIR(about.st_mode))
        status = fb3_fail(FB3_INPUT, "%s is a directory; give a file", path);
    else
        status = hash_descriptor(file, path, hash);
    close(file);
    return status;
}

fb3_status fb3_sha256_file(const char *path, char hex[FB3_SHA256_HEX])
{
    fb3_sha256 *hash;
    hex[0] = 0;
    FB3_TRY(fb3_sha256_begin(&hash));
    fb3_status status = hash_file(path, hash);
    fb3_sha256_end(hash, hex);
    if (status != FB3_OK) hex[0] = 0;
    return status;
}

fb3_status fb3_md5_file(const char *path, char base64[FB3_MD5_BASE64])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    fb3_sha256 *hash;
    base64[0] = 0;
    FB3_TRY(begin(&hash, EVP_md5(), "MD5"));
    fb3_status status = hash_file(path, hash);
    end(hash, digest, MD5_BYTES);
    if (status == FB3_OK) EVP_EncodeBlock((unsigned char *)base64, digest, MD5_BYTES);
    return status;
}
