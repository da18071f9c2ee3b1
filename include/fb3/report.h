/* report.html: a run on one page, made from the files of its directory alone - so while it runs, after it was killed
 * and after its end it is the same code. One file, nothing fetched, no script. Memory does not grow with the run:
 * curves are thinned and tables are read row by row. */
#ifndef FB3_REPORT_H
#define FB3_REPORT_H

#include "fb3/config.h"

/* Writes the page of the run in `run_dir`, atomically: to `path`, or where that is NULL to <run_dir>/report.html.
 * FB3_INPUT where there is no run. What cannot be read of a run is said on the page. Calls HDF5, so while a fold is in
 * training the I/O worker has to call it. `pause(context)` is called every few thousand rows, and an error from it ends
 * the work, with that error and the file as it was; NULL: not called. */
fb3_status fb3_report_write(const char *run_dir, const char *path, fb3_status (*pause)(void *context), void *context);

/* Several runs side by side, on one page at `path`. */
fb3_status fb3_report_compare(const fb3_strings *run_dirs, const char *path);

#endif
