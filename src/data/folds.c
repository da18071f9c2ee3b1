/* Iterative stratification: Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011,
 * with every choice (order, comparisons in double, random draws) made as the PyPI package iterative-stratification
 * makes it, so that the folds are the same bit for bit.
 *
 * The rarest label that is left is taken; each of its samples goes to the fold that wants most of this label, among
 * equals to the one that wants most samples, among equals to a random one. Samples without any label come last. A
 * label is taken once, so the work is O(n (L + k)). */
#include "fb3/folds.h"
#include "mt19937.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_LEVELS = 1000, /* of one target */
    BLOCK_ROWS = 1 << 14,
};

/* 0/1 labels of samples, a bit each: 10^7 samples of 6 labels are 10 MB, of 54 labels 70 MB. */
typedef struct label_bits {
    int64_t n;
    int labels;    /* L */
    int bytes;     /* of a sample */
    uint8_t *byte; // [n, bytes]
} label_bits;

static fb3_status make_bits(label_bits *bits, int64_t n, int labels)
{
    *bits = (label_bits){.n = n, .labels = labels, .bytes = (labels + 7) / 8};
    bits->byte = calloc((size_t)n, (size_t)bits->bytes);
    FB3_REQUIRE(bits->byte, FB3_FAILED, "out of memory for %d labels of %lld samples", labels, (long long)n);
    return FB3_OK;
}

static void set_bit(label_bits *bits, int64_t sample, int label)
{
    bits->byte[sample * bits->bytes + label / 8] |= (uint8_t)(1u << label % 8);
}

static bool has_bit(const label_bits *bits, int64_t sample, int label)
{
    return bits->byte[sample * bits->bytes + label / 8] >> label % 8 & 1;
}

typedef struct stratifier {
    const label_bits *bits;
    int k;
    fb3_mt19937 random;
    int32_t *order;       /* [n] the shuffled samples */
    int64_t *left;        /* [L] samples of each label that have no fold yet */
    double *label_wanted; // [L, k] how many samples of a label a fold still wants; label by label, unlike the package
    double *wanted;       /* [k] how many samples a fold still wants */
    int8_t *fold;         /* [n], -1: none yet */
} stratifier;

static void free_stratifier(stratifier *s)
{
    free(s->order);
    free(s->left);
    free(s->label_wanted);
    free(s->wanted);
}

static fb3_status make_stratifier(stratifier *s, const label_bits *bits, int8_t *fold, int k, uint32_t seed)
{
    *s = (stratifier){.bits = bits, .k = k, .fold = fold};
    s->order = malloc((size_t)bits->n * sizeof *s->order);
    s->left = calloc((size_t)bits->labels, sizeof *s->left);
    s->label_wanted = calloc((size_t)bits->labels * (size_t)k, sizeof *s->label_wanted);
    s->wanted = calloc((size_t)k, sizeof *s->wanted);
    FB3_REQUIRE(s->order && s->left && s->label_wanted && s->wanted, FB3_FAILED,
                "out of memory for the folds of %lld samples", (long long)bits->n);
    memset(fold, -1, (size_t)bits->n);
    fb3_mt19937_seed(&s->random, seed);
    for (int64_t i = 0; i < bits->n; i++) s->order[i] = (int32_t)i;
    fb3_mt19937_shuffle(&s->random, s->order, bits->n);
    for (int64_t i = 0; i < bits->n; i++) {
        for (int label = 0; label < bits->labels; label++) s->left[label] += has_bit(bits, i, label);
    }
    const double share = 1.0 / k;
    for (int f = 0; f < k; f++) {
        s->wanted[f] = share * (double)bits->n;
        for (int label = 0; label < bits->labels; label++)
            s->label_wanted[label * k + f] = share * (double)s->left[label];
    }
    return FB3_OK;
}

/* One of the first `count` candidates; a lone one costs no random number. */
static int draw(stratifier *s, const int *candidate, int count)
{
    return candidate[fb3_mt19937_bounded(&s->random, (uint32_t)(count - 1))];
}

/* The label with the fewest samples left, but at least one; -1 when there is none. */
static fb3_status rarest_label(stratifier *s, int *rarest)
{
    int count = 0;
    int *candidate = malloc((size_t)s->bits->labels * sizeof *candidate);
    FB3_REQUIRE(candidate, FB3_FAILED, "out of memory for %d labels", s->bits->labels);
    for (int label = 0; label < s->bits->labels; label++) {
        if (s->left[label] == 0) continue;
        if (count > 0 && s->left[label] > s->left[candidate[0]]) continue;
        if (count > 0 && s->left[label] < s->left[candidate[0]]) count = 0;
        candidate[count++] = label;
    }
    *rarest = count > 0 ? draw(s, candidate, count) : -1;
    free(candidate);
    return FB3_OK;
}

/* The folds, among those listed, that want most; count -> count. */
static int keep_largest(const double *wanted, int *candidate, int count)
{
    int kept = 0;
    double largest = wanted[candidate[0]];
    for (int i = 1; i < count; i++) {
        if (wanted[candidate[i]] > largest) largest = wanted[candidate[i]];
    }
    for (int i = 0; i < count; i++) {
        if (wanted[candidate[i]] == largest) candidate[kept++] = candidate[i];
    }
    return kept;
}

/* label -1: only the number of samples counts. */
static int choose_fold(stratifier *s, int label)
{
    int candidate[FB3_MAX_FOLDS], count = s->k;
    for (int f = 0; f < s->k; f++) candidate[f] = f;
    if (label >= 0) count = keep_largest(s->label_wanted + (size_t)label * (size_t)s->k, candidate, count);
    if (count > 1) count = keep_largest(s->wanted, candidate, count);
    return draw(s, candidate, count);
}

static void assign(stratifier *s, int32_t sample, int f)
{
    const label_bits *bits = s->bits;
    s->fold[sample] = (int8_t)f;
    s->wanted[f] -= 1;
    for (int b = 0; b < bits->bytes; b++) {
        for (unsigned set = bits->byte[(int64_t)sample * bits->bytes + b]; set != 0; set &= set - 1) {
            int label = b * 8 + __builtin_ctz(set);
            s->left[label]--;
            s->label_wanted[(size_t)label * (size_t)s->k + (size_t)f] -= 1;
        }
    }
}

static fb3_status stratify(const label_bits *bits, int8_t *fold, int k, uint32_t seed)
{
    stratifier s;
    int label = -1;
    fb3_status status;
    FB3_TRY_GOTO(make_stratifier(&s, bits, fold, k, seed), done);
    do {
        FB3_TRY_GOTO(rarest_label(&s, &label), done);
        for (int64_t i = 0; i < bits->n; i++) {
            int32_t sample = s.order[i];
            if (fold[sample] < 0 && (label < 0 || has_bit(bits, sample, label)))
                assign(&s, sample, choose_fold(&s, label));
        }
    } while (label >= 0);
done:
    free_stratifier(&s);
    return status;
}

static fb3_status check_counts(int64_t n, int k)
{
    FB3_REQUIRE(k >= 2 && k <= FB3_MAX_FOLDS, FB3_INPUT, "folds is %d, but must lie between 2 and %d", k,
                FB3_MAX_FOLDS);
    FB3_REQUIRE(n >= k, FB3_INPUT, "%lld samples are fewer than %d folds; use fewer folds", (long long)n, k);
    FB3_REQUIRE(n <= INT32_MAX, FB3_INPUT, "%lld samples are more than %d", (long long)n, INT32_MAX);
    return FB3_OK;
}

fb3_status fb3_folds_iterstrat(int8_t *fold, const uint8_t *labels, int64_t n, int label_count, int k, uint32_t seed)
{
    assert(label_count >= 1);
    label_bits bits;
    FB3_TRY(check_counts(n, k));
    FB3_TRY(make_bits(&bits, n, label_count));
    for (int64_t i = 0; i < n; i++) {
        for (int label = 0; label < label_count; label++) {
            if (labels[i * label_count + label]) set_bit(&bits, i, label);
        }
    }
    fb3_status status = stratify(&bits, fold, k, seed);
    free(bits.byte);
    return status;
}

/* --- labels from scores ------------------------------------------------------------------------------------------- */

typedef fb3_status (*score_visit)(void *context, int64_t sample, const float *score);

/* score [Y] of each sample, in order. */
static fb3_status visit_scores(const fb3_score_source *scores, score_visit visit, void *context)
{
    fb3_status status = FB3_OK;
    float *block = malloc(BLOCK_ROWS * (size_t)scores->targets * sizeof *block); // [BLOCK_ROWS, Y]
    FB3_REQUIRE(block, FB3_FAILED, "out of memory for scores");
    for (int64_t first = 0; first < scores->n; first += BLOCK_ROWS) {
        int64_t rows = first + BLOCK_ROWS < scores->n ? BLOCK_ROWS : scores->n - first;
        FB3_TRY_GOTO(scores->read(scores->context, first, rows, block), done);
        for (int64_t i = 0; i < rows; i++) FB3_TRY_GOTO(visit(context, first + i, block + i * scores->targets), done);
    }
done:
    free(block);
    return status;
}

static fb3_status check_scores(const fb3_score_source *scores, int k)
{
    FB3_REQUIRE(scores->targets >= 1, FB3_INPUT, "there are no scores to make folds from; set label_columns");
    return check_counts(scores->n, k);
}

static fb3_status set_unless_zero(void *context, int64_t sample, const float *score)
{
    label_bits *bits = context;
    for (int y = 0; y < bits->labels; y++)
        if (score[y] != 0) set_bit(bits, sample, y);
    return FB3_OK;
}

fb3_status fb3_folds_compat(int8_t *fold, const fb3_score_source *scores, int k, uint32_t seed)
{
    label_bits bits;
    FB3_TRY(check_scores(scores, k));
    FB3_TRY(make_bits(&bits, scores->n, scores->targets));
    fb3_status status = visit_scores(scores, set_unless_zero, &bits);
    if (status == FB3_OK) status = stratify(&bits, fold, k, seed);
    free(bits.byte);
    return status;
}

/* Twice the score, rounded to a whole number: half points. */
static double level_of(float score)
{
    return floor(2.0 * (double)score + 0.5);
}

/* The levels that occur in one target, ascending. */
typedef struct levels {
    int count;
    double value[MAX_LEVELS];
} levels;

/* The position of the level, or of the first larger one. */
static int find_level(const levels *l, double value)
{
    int low = 0, high = l->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (l->value[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* All targets' levels, and the labels that are made of them: target by target, level by level. */
typedef struct binning {
    int targets;
    levels *of; // [Y]
    label_bits bits;
} binning;

static fb3_status add_level(levels *l, int target, double value)
{
    int at = find_level(l, value);
    if (at < l->count && l->value[at] == value) return FB3_OK;
    FB3_REQUIRE(l->count < MAX_LEVELS, FB3_INPUT,
                "target %d has more than %d score levels; use fold_method: iterstrat-compat", target + 1, MAX_LEVELS);
    memmove(l->value + at + 1, l->value + at, (size_t)(l->count - at) * sizeof *l->value);
    l->value[at] = value;
    l->count++;
    return FB3_OK;
}

static fb3_status collect_levels(void *context, int64_t sample, const float *score)
{
    binning *b = context;
    (void)sample;
    for (int y = 0; y < b->targets; y++) FB3_TRY(add_level(&b->of[y], y, level_of(score[y])));
    return FB3_OK;
}

static fb3_status set_levels(void *context, int64_t sample, const float *score)
{
    binning *b = context;
    for (int y = 0, first = 0; y < b->targets; first += b->of[y++].count)
        set_bit(&b->bits, sample, first + find_level(&b->of[y], level_of(score[y])));
    return FB3_OK;
}

fb3_status fb3_folds_binned(int8_t *fold, const fb3_score_source *scores, int k, uint32_t seed)
{
    FB3_TRY(check_scores(scores, k));
    fb3_status status = FB3_OK;
    int labels = 0;
    binning b = {.targets = scores->targets, .of = calloc((size_t)scores->targets, sizeof *b.of)};
    FB3_REQUIRE(b.of, FB3_FAILED, "out of memory for score levels");
    FB3_TRY_GOTO(visit_scores(scores, collect_levels, &b), done);
    for (int y = 0; y < b.targets; y++) labels += b.of[y].count;
    FB3_TRY_GOTO(make_bits(&b.bits, scores->n, labels), done);
    FB3_TRY_GOTO(visit_scores(scores, set_levels, &b), done);
    status = stratify(&b.bits, fold, k, seed);
done:
    free(b.bits.byte);
    free(b.of);
    return status;
}
