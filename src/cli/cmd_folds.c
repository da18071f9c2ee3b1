/* fb3-dist folds: writes folds.csv into --output_dir and stops. */
#include "cli.h"
#include <stdio.h>

fb3_status cmd_folds(fb3_session *session)
{
    fb3_run run;
    fb3_status status = fb3_run_open_folds(&run, session);
    if (status == FB3_OK && session->root) {
        int64_t size[FB3_MAX_FOLDS] = {0};
        for (int64_t i = 0; i < run.data->n; i++) size[run.fold[i]]++;
        for (int k = 0; k < run.folds; k++) printf("fold %d: %lld samples\n", k, (long long)size[k]);
    }
    fb3_run_close(&run);
    return status;
}
