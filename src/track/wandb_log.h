/* The file that W&B's programs call a transaction log, run-<id>.wandb: records of any size in blocks of 32 KiB, the
 * framing of LevelDB's log with another checksum.
 *
 *   file  = 3A 57 26 42 E1 BE 00 piece*          the seven bytes count as part of the first block
 *   piece = crc32(type, data) as u32, length as u16, type as u8, data      little-endian; zlib's CRC-32, not crc32c
 *   type  = 1 whole record, 2 first, 3 middle, 4 last piece of one that crosses a block's end
 *
 * Fewer than seven bytes at a block's end are zero. */
#ifndef FB3_TRACK_WANDB_LOG_H
#define FB3_TRACK_WANDB_LOG_H

#include "fb3/status.h"
#include <stddef.h>

typedef struct fb3_wandb_log fb3_wandb_log;

/* A new file: FB3_FAILED where there is one already. */
fb3_status fb3_wandb_log_create(fb3_wandb_log **log, const char *path);
/* The record is in the hands of the system when this returns: it outlives the process. */
fb3_status fb3_wandb_log_write(fb3_wandb_log *log, const void *record, size_t bytes);
void fb3_wandb_log_close(fb3_wandb_log *log);

/* Visits the records of a file, up to its end or to the first that is damaged or incomplete, as a process that was
 * killed leaves it; that is no error. */
typedef fb3_status (*fb3_wandb_visit)(void *context, const void *record, size_t bytes);
fb3_status fb3_wandb_log_read(const char *path, fb3_wandb_visit visit, void *context);

#endif
