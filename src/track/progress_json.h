/* Progress as JSON objects: for progress.json, and inside that of a run. */
#ifndef FB3_TRACK_PROGRESS_JSON_H
#define FB3_TRACK_PROGRESS_JSON_H

#include "fb3/progress.h"
#include "fb3/scores_json.h"

/* A new reference; NULL: out of memory. */
json_t *fb3_fold_progress_pack(const fb3_fold_progress *progress);
/* For a terminal, and for JSON, which is UTF-8 only: what is not printable ASCII becomes '?'. */
void fb3_make_printable(char *text);

#endif
