#include "crc32c.h"

/* The polynomial 0x1EDC6F41 with its bits in reverse. */
static const uint32_t POLYNOMIAL = 0x82F63B78u;

/* Records are a few dozen bytes, so a bit at a time is fast enough and needs no table. */
uint32_t fb3_crc32c(const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    }
    return ~crc;
}
