/* fb3-dist report [RUN_DIR...]: makes a run's report.html again; of several runs, one page with them side by side. */
#include "cli.h"
#include "fb3/log.h"
#include "fb3/report.h"

static fb3_status report_one(const fb3_config *config, const char *run_dir)
{
    FB3_TRY(fb3_report_write(run_dir, config->output, NULL, NULL));
    if (config->output) {
        fb3_log_info("%s is written", config->output);
    } else {
        fb3_log_info("%s/report.html is written", run_dir);
    }
    return FB3_OK;
}

fb3_status cmd_report(fb3_config *config)
{
    const fb3_strings *runs = &config->arguments;
    if (runs->count == 0) return report_one(config, config->output_dir);
    if (runs->count == 1) return report_one(config, runs->item[0]);
    const char *path = config->output ? config->output : "comparison.html";
    FB3_TRY(fb3_report_compare(runs, path));
    fb3_log_info("%s is written: %d runs side by side", path, runs->count);
    return FB3_OK;
}
