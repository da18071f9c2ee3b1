#include "series.h"

#include <math.h>
#include <stdlib.h>

fb3_status series_make(series *s, int capacity)
{
    *s = (series){.capacity = capacity, .width = 1, .first = NAN, .last = NAN, .low = NAN, .high = NAN};
    s->point = calloc((size_t)capacity, sizeof *s->point);
    FB3_REQUIRE(s->point, FB3_FAILED, "out of memory for a curve");
    return FB3_OK;
}

void series_free(series *s)
{
    free(s->point);
    *s = (series){0};
}

static void join(series_point *a, const series_point *b)
{
    if (b->count > 0) {
        a->low = a->count > 0 ? fmin(a->low, b->low) : b->low;
        a->high = a->count > 0 ? fmax(a->high, b->high) : b->high;
    }
    a->sum += b->sum;
    a->steps += b->steps;
    a->count += b->count;
    a->missing += b->missing;
}

static void halve(series *s)
{
    for (int i = 0; i < s->count; i += 2) {
        series_point both = s->point[i];
        if (i + 1 < s->count) join(&both, &s->point[i + 1]);
        s->point[i / 2] = both;
    }
    int half = (s->count + 1) / 2;
    for (int i = half; i < s->count; i++) s->point[i] = (series_point){0};
    s->count = half;
    s->width *= 2;
}

static void note_extremes(series *s, int64_t step, double value)
{
    if (s->values++ == 0) {
        s->first = s->low = s->high = value;
        s->first_step = s->low_step = s->high_step = step;
    }
    if (value < s->low) {
        s->low = value;
        s->low_step = step;
    }
    if (value > s->high) {
        s->high = value;
        s->high_step = step;
    }
    s->last = value;
    s->last_step = step;
}

void series_add(series *s, int64_t step, double value)
{
    if (step < 1 || step > INT64_MAX / 2) return; /* not a step of ours */
    while ((step - 1) / s->width >= s->capacity) halve(s);
    int at = (int)((step - 1) / s->width);
    if (at >= s->count) s->count = at + 1;
    if (!isfinite(value)) {
        s->missing++;
        s->point[at].missing++;
        return;
    }
    series_point one = {.low = value, .high = value, .sum = value, .steps = (double)step, .count = 1};
    join(&s->point[at], &one);
    note_extremes(s, step, value);
}

bool series_is_thinned(const series *s)
{
    for (int i = 0; i < s->count; i++)
        if (s->point[i].count > 1) return true;
    return false;
}

double histogram_quantile(const uint32_t *bin, int bins, double low, double high, double q)
{
    double total = 0, below = 0;
    for (int i = 0; i < bins; i++) total += bin[i];
    if (total == 0) return NAN;
    for (int i = 0; i < bins; i++) {
        if (bin[i] > 0 && below + bin[i] >= q * total) {
            return low + (high - low) / bins * (i + (q * total - below) / bin[i]);
        }
        below += bin[i];
    }
    return high;
}
