/* report.html: a run on one page, made from the files of its directory alone - so while it runs, after it was killed
 * and after its end it is the same code. One file, nothing fetched, no script. Memory does not grow with the run:
 * curves are thinned and tables are read row by row. */
#ifndef FB3_REPORT_H
#define FB3_REPORT_H

#include "fb3/config.h"
#include "fb3/worker.h"

/* Writes the page of the run in `run_dir`, atomically: to `path`, or where that is NULL to <run_dir>/report.html.
 * FB3_INPUT where there is no run. What cannot be read of a run is said on the page. Calls HDF5: on the I/O worker
 * while there is one, which then gives way to jobs that others wait for (`give_way_to`); else NULL. */
fb3_status fb3_report_write(const char *run_dir, const char *path, fb3_worker *give_way_to);

/* Several runs side by side, on one page at `path`. */
fb3_status fb3_report_compare(const fb3_strings *run_dirs, const char *path);

#endif
