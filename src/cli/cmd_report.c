/* fb3-dist report [RUN_DIR...]: makes a run's report.html again; of several runs, or of a run of seeds, one page
 * with them side by side. */
#include "cli.h"
#include "fb3/log.h"
#include "fb3/report.h"
#include "fb3/run_directory.h"

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

static fb3_status report_several(const fb3_config *config, const fb3_strings *runs)
{
    const char *path = config->output ? config->output : "comparison.html";
    FB3_TRY(fb3_report_compare(runs, path));
    fb3_log_info("%s is written: %d runs side by side", path, runs->count);
    return FB3_OK;
}

fb3_status cmd_report(fb3_config *config)
{
    fb3_strings runs = {0};
    fb3_status status = fb3_run_directories_given(&runs, config);
    if (status == FB3_OK) status = runs.count == 1 ? report_one(config, runs.item[0]) : report_several(config, &runs);
    fb3_strings_free(&runs);
    return status;
}
