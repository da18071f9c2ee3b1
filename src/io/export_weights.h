/* Writers of weights files (safetensors_write.c, torch_write.c) and what they share. Private to src/io. */
#ifndef FB3_IO_EXPORT_WEIGHTS_H
#define FB3_IO_EXPORT_WEIGHTS_H

#include "fb3/hf_dir.h"

/* model.safetensors with DebertaV2Model's own names, and fc.*. Flushed to the disk. */
fb3_status fb3_safetensors_write(const fb3_export *export, const char *path);
/* pytorch_model.bin with the names of the notebook's module: model.*, fc.*. Flushed to the disk. */
fb3_status fb3_torch_zip_write(const fb3_export *export, const char *path);

size_t fb3_export_element_bytes(fb3_export_dtype dtype);
/* Elements of the parameter in a file: all rows of the word table. */
int64_t fb3_export_elements(const fb3_param *param);
/* Its shape there; returns the number of dimensions. */
int fb3_export_shape(const fb3_param *param, int64_t shape[2]);
/* `count` elements from `first` in the type of the export, little-endian. FB3_FAILED when a finite value has no finite
 * counterpart in it. */
fb3_status fb3_export_encode(const fb3_export *export, const fb3_param *param, int64_t first, int64_t count, void *out);

#endif
