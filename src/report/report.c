/* The page about one run. */
#include "sections.h"

#include "fb3/file.h"

#include <stdlib.h>

static void write_page(page *p, const void *context)
{
    const run_report *r = context;
    page_begin(p, r->name);
    section_head(p, r);
    section_scores(p, r);
    section_training(p, r);
    section_predictions(p, r);
    section_lengths(p, r);
    section_time(p, r);
    section_configuration(p, r);
    page_markup(p, "</main>\n");
    page_end(p);
}

fb3_status fb3_report_write(const char *run_dir, const char *path, fb3_status (*pause)(void *context), void *context)
{
    run_report *r = malloc(sizeof *r);
    char *usual = fb3_path_join(run_dir, "report.html");
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(r && usual, done, FB3_FAILED, "out of memory for a report");
    *r = (run_report){.sharing = 1, .pause = pause, .context = context};
    status = run_report_read(r, run_dir);
    if (status == FB3_OK) status = page_publish(path ? path : usual, write_page, r);
    run_report_free(r);
done:
    free(usual);
    free(r);
    return status;
}
