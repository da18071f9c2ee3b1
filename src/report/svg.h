/* Charts, drawn as SVG inside the page: 400 units wide, so that its text has the page's size on a phone. Colours and
 * strokes are classes of style.css. Private to `report`. */
#ifndef FB3_REPORT_SVG_H
#define FB3_REPORT_SVG_H

#include "page.h"
#include "series.h"

enum { SVG_WIDTH = 400, SVG_HEIGHT = 240, SVG_COLOURS = 8, SVG_DASHES = 4 };

typedef struct svg_scale {
    double low, high;
    bool log;
} svg_scale;

/* A scale around low..high (NaN: there are no values). `zero`: from 0 on. `log`: logarithmic, if the values are
 * positive and far apart. */
svg_scale svg_scale_fit(double low, double high, bool zero, bool log);

typedef struct svg_chart {
    page *page;
    double left, right, top, bottom; /* of the plot, in units */
    svg_scale x, y;
} svg_chart;

/* Opens the drawing, with a name and a description for those who do not see it. Texts may be from files. */
void svg_open(page *p, int height, const char *title, const char *description);
void svg_close(page *p);

/* A chart with axes and grid; svg_close() ends it. */
void svg_chart_begin(svg_chart *c, page *p, const char *title, const char *description, svg_scale x, svg_scale y,
                     const char *x_label, const char *y_label);
/* The axis below a plot that is made by hand. */
void svg_x_axis(svg_chart *c, const char *label);
double svg_x(const svg_chart *c, double value);
double svg_y(const svg_chart *c, double value);

/* "c3 d0": the colour and, from the ninth on, the dashes of a line. */
const char *svg_class(int index);

/* A thinned curve: the band between the lowest and highest values, and a line through the means. Steps without a finite
 * value are crosses at the top. */
void svg_series(svg_chart *c, const series *s, int index);
void svg_line(svg_chart *c, const double *x, const double *y, int count, int index);
void svg_dot(svg_chart *c, double x, double y, double radius, int index);
/* A dashed line across, at y. */
void svg_rule(svg_chart *c, double y);
/* From (x0, y0) to (x1, y1) in values, of a class of ours. */
void svg_segment(svg_chart *c, double x0, double y0, double x1, double y1, const char *class);
void svg_bar(svg_chart *c, double x0, double x1, double y0, double y1, const char *class);

/* Keys of a chart's colours, as a list. */
void svg_legend_begin(page *p);
void svg_legend_line(page *p, int index, const char *text);
void svg_legend_area(page *p, const char *class, const char *text); /* of a class of ours */
void svg_legend_end(page *p);

#endif
