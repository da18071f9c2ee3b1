/* Where a run's directories are: the one place that knows their names. */
#ifndef FB3_RUN_DIRECTORY_H
#define FB3_RUN_DIRECTORY_H

#include "fb3/config.h"

/* "<run directory>/fold-<k>", or a file in it when `name` is not NULL. Caller frees. */
char *fb3_fold_path(const char *run_directory, int fold, const char *name);
/* "<directory>/seed-<n>", the run directory of one of several `seeds`. Caller frees. */
char *fb3_seed_path(const char *directory, int64_t seed);

/* Whether `directory` holds a run: it has a run.yaml. */
bool fb3_run_directory_exists(const char *directory);
/* Adds the run directories that a user means by `directory`: those of its seeds, ascending, where it has some and is no
 * run itself; else `directory`, whatever it is. */
fb3_status fb3_run_directories_add(fb3_strings *runs, const char *directory);
/* Those of the command line's arguments, or, where it has none, of output_dir. */
fb3_status fb3_run_directories_given(fb3_strings *runs, const fb3_config *config);

#endif
