/* Extended grapheme clusters by the rules GB3 to GB13 of UAX #29, read forward from the start of a cluster: all that
 * a rule looks back at lies in the cluster itself, so a few words of state are enough. */
#include "grapheme.h"

#include "fb3/utf8.h"

#include <stdbool.h>

typedef enum {
    OTHER,
    CR,
    LF,
    CONTROL,
    EXTEND,
    ZWJ,
    REGIONAL,
    PREPEND,
    SPACING_MARK,
    HANGUL_L,
    HANGUL_V,
    HANGUL_T,
    HANGUL_LV,
    HANGUL_LVT,
    PICTOGRAPH,
} break_property;

typedef enum { NO_CONJUNCT, LINKER, CONSONANT } conjunct_property;

#include "grapheme_table.h"

/* Precomposed Hangul, by the formula of the Unicode standard, section 3.12. */
enum { HANGUL_FIRST = 0xAC00, HANGUL_LAST = 0xD7A3, HANGUL_TRAILING = 28 };

enum { ZERO_WIDTH_NON_JOINER = 0x200C };

/* Binary search for the range that holds `code`. */
#define FIND_PROPERTY(ranges, code, none)                                                                              \
    size_t low = 0, high = sizeof ranges / sizeof ranges[0];                                                           \
    while (low < high) {                                                                                               \
        size_t middle = (low + high) / 2;                                                                              \
        if (code < ranges[middle].first)                                                                               \
            high = middle;                                                                                             \
        else if (code > ranges[middle].last)                                                                           \
            low = middle + 1;                                                                                          \
        else                                                                                                           \
            return ranges[middle].property;                                                                            \
    }                                                                                                                  \
    return none

static break_property break_of(uint32_t code)
{
    if (code >= HANGUL_FIRST && code <= HANGUL_LAST)
        return (code - HANGUL_FIRST) % HANGUL_TRAILING == 0 ? HANGUL_LV : HANGUL_LVT;
    FIND_PROPERTY(break_ranges, code, OTHER);
}

static conjunct_property conjunct_of(uint32_t code)
{
    FIND_PROPERTY(conjunct_ranges, code, NO_CONJUNCT);
}

/* What the rules remember of the cluster so far. */
typedef struct cluster {
    break_property last;
    bool pictograph;     /* a pictograph, then only Extend: GB11 is waiting for a ZWJ */
    bool pictograph_zwj; /* ... and the ZWJ came last */
    bool consonant;      /* a consonant, then only Extend, ZWJ and linkers: GB9c is waiting for a linker */
    bool linked;         /* ... and a linker was among them */
    bool odd_regionals;  /* an unpaired regional indicator came last */
} cluster;

static void extend_cluster(cluster *c, uint32_t code, break_property property)
{
    bool extends = property == EXTEND || property == ZWJ;
    conjunct_property conjunct = conjunct_of(code);
    c->pictograph_zwj = c->pictograph && property == ZWJ;
    c->pictograph = property == PICTOGRAPH || (c->pictograph && property == EXTEND);
    c->linked = c->consonant && (conjunct == LINKER || (c->linked && extends && code != ZERO_WIDTH_NON_JOINER));
    c->consonant =
        conjunct == CONSONANT || (c->consonant && (conjunct == LINKER || (extends && code != ZERO_WIDTH_NON_JOINER)));
    if (conjunct == CONSONANT) c->linked = false;
    c->odd_regionals = property == REGIONAL && !c->odd_regionals;
    c->last = property;
}

static bool joins_hangul(break_property last, break_property next)
{
    switch (last) {
    case HANGUL_L: /* GB6 */
        return next == HANGUL_L || next == HANGUL_V || next == HANGUL_LV || next == HANGUL_LVT;
    case HANGUL_V: /* GB7 */
    case HANGUL_LV:
        return next == HANGUL_V || next == HANGUL_T;
    case HANGUL_T: /* GB8 */
    case HANGUL_LVT:
        return next == HANGUL_T;
    default:
        return false;
    }
}

static bool is_control(break_property property)
{
    return property == CR || property == LF || property == CONTROL;
}

/* Whether the character that follows the cluster belongs to it. */
static bool joins(const cluster *c, uint32_t code, break_property next)
{
    if (c->last == CR && next == LF) return true;                           /* GB3 */
    if (is_control(c->last) || is_control(next)) return false;              /* GB4, GB5 */
    if (joins_hangul(c->last, next)) return true;                           /* GB6 to GB8 */
    if (next == EXTEND || next == ZWJ || next == SPACING_MARK) return true; /* GB9, GB9a */
    if (c->last == PREPEND) return true;                                    /* GB9b */
    if (c->linked && conjunct_of(code) == CONSONANT) return true;           /* GB9c */
    if (c->pictograph_zwj && next == PICTOGRAPH) return true;               /* GB11 */
    return c->odd_regionals && next == REGIONAL;                            /* GB12, GB13 */
}

size_t fb3_grapheme_length(const char *text, size_t bytes)
{
    /* Most text: an ASCII character before another; only CR LF is one cluster there. */
    if (bytes == 1 || (!((text[0] | text[1]) & 0x80) && text[0] != '\r')) return 1;

    uint32_t code;
    size_t length = (size_t)fb3_utf8_decode(text, bytes, &code);
    cluster c = {0};
    extend_cluster(&c, code, break_of(code));
    while (length < bytes) {
        size_t more = (size_t)fb3_utf8_decode(text + length, bytes - length, &code);
        break_property next = break_of(code);
        if (!joins(&c, code, next)) break;
        extend_cluster(&c, code, next);
        length += more;
    }
    return length;
}
