/* Numbers of which there may be too many to keep: curves thinned to a few hundred points as they come, and quantiles
 * from a histogram. Private to `report`. */
#ifndef FB3_REPORT_SERIES_H
#define FB3_REPORT_SERIES_H

#include "fb3/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct series_point {
    double low, high, sum, steps; /* of `count` values; steps: the sum of their steps */
    int64_t count, missing;       /* missing: steps whose value was not finite */
} series_point;

/* A curve over ascending steps. A point stands for `width` steps; when the steps outgrow the points, neighbours are
 * joined and the width doubles. So the same curve comes out however the values came in, and no peak is lost. */
typedef struct series {
    series_point *point; /* [capacity] */
    int capacity, count;
    int64_t width, values, missing;
    double first, last, low, high; /* of all finite values; NaN without */
    int64_t first_step, last_step, low_step, high_step;
} series;

fb3_status series_make(series *s, int capacity);
void series_free(series *s);
void series_add(series *s, int64_t step, double value);
/* Values were joined, so that a point has a range. */
bool series_is_thinned(const series *s);

/* The value below which the share q of the histogram's counts lies, the bins being equal parts of low..high. */
double histogram_quantile(const uint32_t *bin, int bins, double low, double high, double q);

#endif
