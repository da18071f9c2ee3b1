#include "svg.h"

#include <math.h>
#include <string.h>

enum { MOST_TICKS = 12, LEFT = 56, RIGHT = 12, TOP = 10, BOTTOM = 42 };

/* A scale is logarithmic when its values are this far apart. */
#define FAR_APART 50.0

svg_scale svg_scale_fit(double low, double high, bool zero, bool log)
{
    svg_scale s = {.low = 0, .high = 1};
    if (!isfinite(low) || !isfinite(high)) return s;
    s = (svg_scale){.low = low, .high = high, .log = log && low > 0 && high / low > FAR_APART};
    if (s.log) return (svg_scale){.low = low / 1.1, .high = high * 1.1, .log = true};
    if (zero) s.low = fmin(low, 0);
    double room = 0.04 * (s.high - s.low);
    if (!(room > 0)) room = fabs(high) > 0 ? 0.05 * fabs(high) : 0.5;
    s.high += room;
    if (!zero || low < 0) s.low -= room;
    return s;
}

static double position(const svg_scale *s, double value)
{
    if (s->log) return value > 0 ? log(value / s->low) / log(s->high / s->low) : 0;
    return (value - s->low) / (s->high - s->low);
}

static double within(double share)
{
    return share > 1 ? 1 : share > 0 ? share : 0;
}

double svg_x(const svg_chart *c, double value)
{
    return c->left + (c->right - c->left) * within(position(&c->x, value));
}

double svg_y(const svg_chart *c, double value)
{
    return c->bottom - (c->bottom - c->top) * within(position(&c->y, value));
}

/* --- axes --------------------------------------------------------------------------------------------------------- */

static double nice_step(double range, int most)
{
    double power = pow(10, floor(log10(range / most)));
    static const double STEP[] = {1, 2, 5};
    for (int i = 0; i < 3; i++)
        if (range / (STEP[i] * power) <= most) return STEP[i] * power;
    return 10 * power;
}

static int log_ticks(const svg_scale *s, double *tick)
{
    int count = 0;
    int first = (int)ceil(log10(s->low) - 1e-9), last = (int)floor(log10(s->high) + 1e-9);
    int every = 1 + (last - first) / 6;
    bool between = last - first < 2;
    for (int e = first - 1; e <= last; e++) {
        static const double PART[] = {1, 2, 5};
        for (int i = 0; i < (between ? 3 : 1) && count < MOST_TICKS; i++) {
            double value = PART[i] * pow(10, e);
            bool wanted = between || (e - first) % every == 0;
            if (wanted && value >= s->low && value <= s->high) tick[count++] = value;
        }
    }
    return count;
}

static int ticks(const svg_scale *s, double *tick, int most, double *step)
{
    int count = 0;
    *step = 0;
    if (s->log) return log_ticks(s, tick);
    *step = nice_step(s->high - s->low, most);
    for (double i = ceil(s->low / *step - 1e-9); i * *step <= s->high + 1e-9 * *step && count < MOST_TICKS; i++) {
        tick[count++] = i * *step;
    }
    return count;
}

/* "0.25", "12k", "1.5M", "2e-6" */
static void tick_text(char *text, size_t bytes, double value, double step)
{
    double size = fabs(value), fine = step > 0 ? step : size;
    if (size <= 1e-9 * fine) {
        snprintf(text, bytes, "0");
    } else if (size >= 1e15 || (size > 0 && fine < 1e-3)) {
        int exponent = (int)floor(log10(size) + 1e-9);
        snprintf(text, bytes, "%.3ge%d", value / pow(10, exponent), exponent);
    } else if (size >= 1e4 || step >= 1e4) {
        static const char UNIT[] = {'k', 'M', 'G', 'T'};
        int unit = -1;
        for (; fabs(value) >= 1000 && unit < 3; unit++) value /= 1000;
        if (unit >= 0) {
            snprintf(text, bytes, "%.4g%c", value, UNIT[unit]);
        } else {
            snprintf(text, bytes, "%.4g", value);
        }
    } else {
        int decimals = fine < 1 ? (int)ceil(-log10(fine) - 1e-9) : 0;
        snprintf(text, bytes, "%.*f", decimals, value);
    }
}

void svg_x_axis(svg_chart *c, const char *label)
{
    double tick[MOST_TICKS], step;
    char text[32];
    int count = ticks(&c->x, tick, 6, &step);
    for (int i = 0; i < count; i++) {
        double x = svg_x(c, tick[i]);
        tick_text(text, sizeof text, tick[i], step);
        page_markup(c->page, "<text class=\"x\" x=\"%.1f\" y=\"%.1f\">%s</text>", x, c->bottom + 16, text);
        page_markup(c->page, "<path class=\"a\" d=\"M%.1f %.1fv4\"/>\n", x, c->bottom);
    }
    page_markup(c->page, "<path class=\"a\" d=\"M%.1f %.1fH%.1f\"/><text class=\"x\" x=\"%.1f\" y=\"%.1f\">", c->left,
                c->bottom, c->right, (c->left + c->right) / 2, c->bottom + 34);
    page_text(c->page, label);
    page_markup(c->page, "</text>\n");
}

static void y_axis(svg_chart *c, const char *label)
{
    double tick[MOST_TICKS], step;
    char text[32];
    int count = ticks(&c->y, tick, 5, &step);
    for (int i = 0; i < count; i++) {
        double y = svg_y(c, tick[i]);
        tick_text(text, sizeof text, tick[i], step);
        page_markup(c->page,
                    "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/><text class=\"y\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                    c->left, y, c->right, c->left - 6, y + 4, text);
    }
    double middle = (c->top + c->bottom) / 2;
    page_markup(c->page, "<text class=\"x\" x=\"12\" y=\"%.1f\" transform=\"rotate(-90 12 %.1f)\">", middle, middle);
    page_text(c->page, label);
    page_markup(c->page, "</text>\n");
}

/* --- charts ------------------------------------------------------------------------------------------------------- */

void svg_open(page *p, int height, const char *title, const char *description)
{
    int id = ++p->ids;
    page_markup(p,
                "<svg viewBox=\"0 0 %d %d\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-labelledby=\"t%d\" "
                "aria-describedby=\"d%d\">\n<title id=\"t%d\">",
                SVG_WIDTH, height, id, id, id);
    page_text(p, title);
    page_markup(p, "</title><desc id=\"d%d\">", id);
    page_text(p, description);
    page_markup(p, "</desc>\n");
}

void svg_close(page *p)
{
    page_markup(p, "</svg>\n");
}

void svg_chart_begin(svg_chart *c, page *p, const char *title, const char *description, svg_scale x, svg_scale y,
                     const char *x_label, const char *y_label)
{
    *c = (svg_chart){.page = p,
                     .left = LEFT + 8,
                     .right = SVG_WIDTH - RIGHT,
                     .top = TOP,
                     .bottom = SVG_HEIGHT - BOTTOM,
                     .x = x,
                     .y = y};
    svg_open(p, SVG_HEIGHT, title, description);
    y_axis(c, y_label);
    svg_x_axis(c, x_label);
}

const char *svg_class(int index)
{
    static const char *const CLASS[SVG_DASHES][SVG_COLOURS] = {
        {"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"},
        {"c0 d1", "c1 d1", "c2 d1", "c3 d1", "c4 d1", "c5 d1", "c6 d1", "c7 d1"},
        {"c0 d2", "c1 d2", "c2 d2", "c3 d2", "c4 d2", "c5 d2", "c6 d2", "c7 d2"},
        {"c0 d3", "c1 d3", "c2 d3", "c3 d3", "c4 d3", "c5 d3", "c6 d3", "c7 d3"},
    };
    return CLASS[index / SVG_COLOURS % SVG_DASHES][index % SVG_COLOURS];
}

static double point_x(const svg_chart *c, const series_point *p)
{
    return svg_x(c, p->steps / (double)p->count);
}

static void write_band(svg_chart *c, const series *s, int first, int end, int index)
{
    page_markup(c->page, "<path class=\"b %s\" d=\"M", svg_class(index));
    for (int i = first; i < end; i++) {
        const series_point *p = &s->point[i];
        if (p->count > 0) page_markup(c->page, "%.1f %.1f ", point_x(c, p), svg_y(c, p->high));
    }
    for (int i = end; i-- > first;) {
        const series_point *p = &s->point[i];
        if (p->count > 0) page_markup(c->page, "%.1f %.1f ", point_x(c, p), svg_y(c, p->low));
    }
    page_markup(c->page, "Z\"/>\n");
}

static void write_means(svg_chart *c, const series *s, int first, int end, int index)
{
    int points = 0, only = first;
    for (int i = first; i < end; i++) {
        if (s->point[i].count == 0) continue;
        only = i;
        points++;
    }
    if (points == 1) {
        const series_point *p = &s->point[only];
        svg_dot(c, p->steps / (double)p->count, p->sum / (double)p->count, 3, index);
        return;
    }
    page_markup(c->page, "<path class=\"l %s\" d=\"M", svg_class(index));
    for (int i = first; i < end; i++) {
        const series_point *p = &s->point[i];
        if (p->count > 0) page_markup(c->page, "%.1f %.1f ", point_x(c, p), svg_y(c, p->sum / (double)p->count));
    }
    page_markup(c->page, "\"/>\n");
}

/* Points in a row without a gap, where only steps without a value are a gap: other points may be empty because not
 * every step is logged. */
static int run_of_points(const series *s, int first, bool *any)
{
    int i = first;
    for (*any = false; i < s->count && !(s->point[i].count == 0 && s->point[i].missing > 0); i++) {
        *any |= s->point[i].count > 0;
    }
    return i;
}

void svg_series(svg_chart *c, const series *s, int index)
{
    bool any, thinned = series_is_thinned(s);
    for (int first = 0; first < s->count;) {
        int end = run_of_points(s, first, &any);
        if (any && thinned) write_band(c, s, first, end, index);
        if (any) write_means(c, s, first, end, index);
        first = end > first ? end : first + 1;
    }
    for (int i = 0; i < s->count; i++) {
        if (s->point[i].missing == 0) continue;
        double x = svg_x(c, ((double)i + 0.5) * (double)s->width + 0.5);
        page_markup(c->page, "<path class=\"n\" d=\"M%.1f %.1fl6 6m0-6l-6 6\"/>", x - 3, c->top - 1);
    }
}

void svg_line(svg_chart *c, const double *x, const double *y, int count, int index)
{
    bool drawing = false;
    page_markup(c->page, "<path class=\"l %s\" d=\"", svg_class(index));
    for (int i = 0; i < count; i++) {
        bool there = isfinite(x[i]) && isfinite(y[i]);
        if (there) page_markup(c->page, "%c%.1f %.1f", drawing ? 'L' : 'M', svg_x(c, x[i]), svg_y(c, y[i]));
        drawing = there;
    }
    page_markup(c->page, "\"/>\n");
}

void svg_dot(svg_chart *c, double x, double y, double radius, int index)
{
    if (!isfinite(x) || !isfinite(y)) return;
    page_markup(c->page, "<circle class=\"m %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", svg_class(index), svg_x(c, x),
                svg_y(c, y), radius);
}

void svg_rule(svg_chart *c, double y)
{
    if (!isfinite(y)) return;
    page_markup(c->page, "<path class=\"r\" d=\"M%.1f %.1fH%.1f\"/>\n", c->left, svg_y(c, y), c->right);
}

void svg_segment(svg_chart *c, double x0, double y0, double x1, double y1, const char *class)
{
    page_markup(c->page, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>", class, svg_x(c, x0), svg_y(c, y0),
                svg_x(c, x1), svg_y(c, y1));
}

void svg_bar(svg_chart *c, double x0, double x1, double y0, double y1, const char *class)
{
    double left = svg_x(c, x0), top = svg_y(c, y1);
    page_markup(c->page, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", class, left, top,
                svg_x(c, x1) - left, svg_y(c, y0) - top);
}

/* --- legends ------------------------------------------------------------------------------------------------------ */

void svg_legend_begin(page *p)
{
    page_markup(p, "<ul class=\"legend\">");
}

void svg_legend_line(page *p, int index, const char *text)
{
    page_markup(
        p,
        "<li><svg class=\"key\" viewBox=\"0 0 28 10\" xmlns=\"http://www.w3.org/2000/svg\" aria-hidden=\"true\">"
        "<path class=\"l %s\" d=\"M0 5H28\"/></svg>",
        svg_class(index));
    page_text(p, text);
    page_markup(p, "</li>");
}

void svg_legend_area(page *p, const char *class, const char *text)
{
    page_markup(p,
                "<li><svg class=\"key square\" viewBox=\"0 0 10 10\" xmlns=\"http://www.w3.org/2000/svg\" "
                "aria-hidden=\"true\"><rect class=\"%s\" width=\"10\" height=\"10\"/></svg>",
                class);
    page_text(p, text);
    page_markup(p, "</li>");
}

void svg_legend_end(page *p)
{
    page_markup(p, "</ul>\n");
}
