/* What h5.c and h5_attribute.c share. */
#ifndef FB3_H5_INTERNAL_H
#define FB3_H5_INTERNAL_H

#include "fb3/h5.h"

enum { FB3_H5_NAME_BYTES = 256 };

/* Before the first call of HDF5 on a thread. */
void fb3_h5_start(void);

/* The name of an object's file, for messages. Leaves HDF5's error stack as it is. Returns `name`. */
const char *fb3_h5_file_of(hid_t object, char name[FB3_H5_NAME_BYTES]);

#endif
