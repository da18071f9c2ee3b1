/* CRC-32C (Castagnoli), as RFC 3720 defines it for iSCSI. */
#ifndef FB3_TRACK_CRC32C_H
#define FB3_TRACK_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t fb3_crc32c(const void *data, size_t bytes);

#endif
