/* The lengths of the essays, and what max_length cut from them. */
#include "sections.h"

#include <math.h>

static int64_t most_essays(const data_facts *d)
{
    int64_t most = 1;
    for (int bin = 0; bin <= HISTOGRAM_BINS; bin++)
        if (d->histogram[bin] > most) most = d->histogram[bin];
    return most;
}

static int bin_low(int bin, int max_length)
{
    return bin ? length_edge(bin - 1, HISTOGRAM_BINS, max_length) : 0;
}

static void draw_histogram(page *p, const data_facts *d)
{
    char text[200];
    double bar = (double)d->max_length / HISTOGRAM_BINS, gap = 0.08 * bar;
    snprintf(text, sizeof text, "%lld essays have max_length, %d tokens; the mean is %.0f tokens.",
             (long long)d->histogram[HISTOGRAM_BINS], d->max_length, d->tokens / (double)d->n);
    svg_chart c;
    svg_chart_begin(&c, p, "Essays by length", text, (svg_scale){.low = 0, .high = d->max_length + 1.3 * bar},
                    svg_scale_fit(0, (double)most_essays(d), true, false), "tokens", "essays");
    for (int bin = 0; bin < HISTOGRAM_BINS; bin++) {
        double high = length_edge(bin, HISTOGRAM_BINS, d->max_length);
        if (d->histogram[bin] == 0) continue;
        svg_bar(&c, bin_low(bin, d->max_length) + gap, high - gap, 0, (double)d->histogram[bin], "bar");
    }
    if (d->histogram[HISTOGRAM_BINS] > 0) {
        svg_bar(&c, d->max_length + gap, d->max_length + bar - gap, 0, (double)d->histogram[HISTOGRAM_BINS], "cut");
    }
    svg_close(p);
}

static void histogram_table(page *p, const data_facts *d)
{
    page_details_begin(p, "The same in numbers");
    page_table_begin(p, "Essays by length");
    page_head_begin(p);
    page_head(p, "Tokens");
    page_head(p, "Essays");
    page_head_end(p);
    for (int bin = 0; bin <= HISTOGRAM_BINS; bin++) {
        char name[48];
        if (d->histogram[bin] == 0) continue;
        if (bin == HISTOGRAM_BINS) {
            snprintf(name, sizeof name, "%d (max_length)", d->max_length);
        } else {
            snprintf(name, sizeof name, "%d to %d", bin_low(bin, d->max_length) + 1,
                     length_edge(bin, HISTOGRAM_BINS, d->max_length));
        }
        page_row_begin(p, name);
        page_cell_number(p, (double)d->histogram[bin], 0);
        page_row_end(p);
    }
    page_table_end(p);
    page_details_end(p);
}

/* The sentence about truncation. */
static void truncation(page *p, const data_facts *d)
{
    char essays[PAGE_NUMBER_BYTES], cut[PAGE_NUMBER_BYTES], lost[PAGE_NUMBER_BYTES], longest[PAGE_NUMBER_BYTES];
    const fb3_dataset_report *report = &d->report;
    double before = d->tokens + (double)report->truncated_tokens;
    page_number(essays, (double)d->n, 0);
    page_number(cut, (double)report->truncated_samples, 0);
    page_number(lost, (double)report->truncated_tokens, 0);
    page_number(longest, report->longest, 0);
    if (report->samples == 0) return; /* not recorded */
    if (report->truncated_samples == 0) {
        page_markup(p, "<p>No essay of %s was cut: the longest has %s tokens, and max_length is %d.</p>\n", essays,
                    longest, d->max_length);
    } else {
        page_markup(
            p,
            "<p>max_length %d cut %s of %s essays (%.1f %%), which lost %s tokens, %.1f %% of all. The longest had "
            "%s.</p>\n",
            d->max_length, cut, essays, 100 * (double)report->truncated_samples / (double)d->n, lost,
            100 * (double)report->truncated_tokens / before, longest);
    }
}

static void noticed(page *p, const run_report *r)
{
    const fb3_dataset_report *report = &r->data.report;
    char count[PAGE_NUMBER_BYTES];
    if (report->duplicate_texts > 0) {
        page_markup(p, "<p>%s essays have the text of an earlier one.</p>\n",
                    page_number(count, (double)report->duplicate_texts, 0));
    }
    for (int y = 0; y < r->config.label_columns.count && y < FB3_MAX_TARGETS; y++) {
        if (!report->constant[y]) continue;
        page_markup(p, "<p>Every score of ");
        page_text(p, r->config.label_columns.item[y]);
        page_markup(p, " is the same.</p>\n");
    }
}

void section_lengths(page *p, const run_report *r)
{
    const data_facts *d = &r->data;
    page_section_begin(p, "lengths", "Lengths and truncation");
    if (!d->known) {
        page_markup(p, "<p>The data set is not there, so lengths are not known.</p>\n");
    } else {
        truncation(p, d);
        noticed(p, r);
        page_figure_begin(p, "Essays by length",
                          "After truncation; the last bar, in another colour, is the essays of "
                          "max_length tokens.");
        draw_histogram(p, d);
        histogram_table(p, d);
        page_figure_end(p);
    }
    page_section_end(p);
}
