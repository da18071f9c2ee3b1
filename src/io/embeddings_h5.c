/* Pooled embeddings for other programs to read: /embeddings [models, n, C] and /ids [n]. */
#include "fb3/embeddings.h"
#include "fb3/file.h"
#include "fb3/h5.h"

#include <stdlib.h>
#include <string.h>

/* Ids as fixed-length UTF-8, padded with zeros to the longest. */
static fb3_status write_ids(hid_t file, const fb3_strings *ids)
{
    size_t longest = 1;
    for (int i = 0; i < ids->count; i++) {
        size_t length = strlen(ids->item[i]);
        if (length > longest) longest = length;
    }
    hsize_t n = (hsize_t)ids->count;
    char *cells = calloc((size_t)ids->count + 1, longest);
    hid_t type = H5Tcopy(H5T_C_S1);
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(cells, done, FB3_FAILED, "out of memory for %d ids", ids->count);
    FB3_H5_GOTO(type, done, FB3_FAILED, "cannot make the type of /ids");
    FB3_H5_GOTO(H5Tset_size(type, longest), done, FB3_FAILED, "cannot make the type of /ids");
    FB3_H5_GOTO(H5Tset_cset(type, H5T_CSET_UTF8), done, FB3_FAILED, "cannot make the type of /ids");
    for (int i = 0; i < ids->count; i++) memcpy(cells + (size_t)i * longest, ids->item[i], strlen(ids->item[i]));
    status = fb3_h5_write(file, "ids", type, 1, &n, cells);
done:
    if (type >= 0) H5Tclose(type);
    free(cells);
    return status;
}

fb3_status fb3_embeddings_write(const char *path, const float *pooled, int models, int64_t n, int hidden,
                                const fb3_strings *ids)
{
    fb3_status status = FB3_OK;
    hid_t file = H5I_INVALID_HID;
    hsize_t dims[3] = {(hsize_t)models, (hsize_t)n, (hsize_t)hidden};
    char *temporary = fb3_file_temporary(path);
    FB3_REQUIRE(temporary, FB3_FAILED, "out of memory");
    FB3_TRY_GOTO(fb3_h5_create(&file, temporary), done);
    FB3_TRY_GOTO(fb3_h5_write(file, "embeddings", H5T_NATIVE_FLOAT, 3, dims, pooled), done);
    FB3_TRY_GOTO(write_ids(file, ids), done);
done:
    if (file >= 0) {
        fb3_status closed = fb3_h5_close(file, temporary);
        if (status == FB3_OK) status = closed;
    }
    if (status == FB3_OK) status = fb3_file_publish(temporary, path);
    if (status != FB3_OK) remove(temporary);
    free(temporary);
    return status;
}
