/* Which tensor of a weights file is which parameter. Private to src/io. */
#ifndef FB3_IO_HF_NAMES_H
#define FB3_IO_HF_NAMES_H

#include "tensor_file.h"

/* source[i] becomes the tensor for table->param[i], or NULL for a head that is not there. FB3_INPUT, with a list, when
 * parameters are missing or misshapen, or tensors are left over. */
fb3_status fb3_hf_match(const fb3_tensor_file *file, const fb3_param_table *table, const fb3_tensor **source);
/* The tensor of that parameter name, whatever its prefix in the file, or NULL. */
const fb3_tensor *fb3_hf_find_parameter(const fb3_tensor_file *file, const char *name);

#endif
