/* The Viterbi search of the unigram model (Kudo 2018, "Subword Regularization"), with sums in double as in the Hugging
 * Face fast tokenizer. libsentencepiece's own search adds in float, where divisions that tie exactly ("!!!" + "!!!!"
 * and
 * "!!!!" + "!!!") come out in either order: it gives other ids for about one word in seven made of one repeated
 * character, so the search is ours. On a tie the division found first wins: the one whose last piece starts first.
 *
 * The vocabulary is a list in byte order. Pieces that begin with given bytes are neighbours in it, so the pieces that
 * begin a text are found by narrowing a range of the list, one byte at a time. */
#include "unigram.h"

#include "fb3/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What an unknown character costs beyond the least likely piece: sentencepiece's kUnkPenalty. */
static const double UNKNOWN_PENALTY = 10.0;

enum { BYTE_VALUES = 256, NOT_REACHED = -1 };

struct fb3_unigram {
    const fb3_piece *piece;     /* [count], by id */
    int *sorted;                /* [count] ids, in byte order of their pieces */
    int first[BYTE_VALUES + 1]; /* pieces with first byte b: sorted[first[b]] to sorted[first[b + 1] - 1] */
    int count;
    int unknown;
    double unknown_score;
};

static int compare_pieces(const void *a, const void *b, void *pieces)
{
    const fb3_piece *x = (const fb3_piece *)pieces + *(const int *)a, *y = (const fb3_piece *)pieces + *(const int *)b;
    int order = memcmp(x->text, y->text, (size_t)(x->bytes < y->bytes ? x->bytes : y->bytes));
    return order ? order : x->bytes - y->bytes;
}

fb3_status fb3_unigram_new(fb3_unigram **model, const fb3_piece *piece, int count, int unknown)
{
    *model = NULL;
    fb3_unigram *made = calloc(1, sizeof *made);
    int *sorted = malloc((size_t)count * sizeof *sorted);
    if (!made || !sorted) {
        free(made);
        free(sorted);
        return fb3_fail(FB3_FAILED, "out of memory for a vocabulary of %d pieces", count);
    }
    *made = (fb3_unigram){.piece = piece, .sorted = sorted, .count = count, .unknown = unknown};
    double lowest = 0;
    for (int i = 0; i < count; i++) {
        sorted[i] = i;
        if (i == 0 || piece[i].score < lowest) lowest = piece[i].score;
        made->first[(uint8_t)piece[i].text[0] + 1]++;
    }
    for (int b = 0; b < BYTE_VALUES; b++) made->first[b + 1] += made->first[b];
    made->unknown_score = lowest - UNKNOWN_PENALTY;
    qsort_r(sorted, (size_t)count, sizeof *sorted, compare_pieces, (void *)(uintptr_t)piece);
    *model = made;
    return FB3_OK;
}

void fb3_unigram_free(fb3_unigram *model)
{
    if (!model) return;
    free(model->sorted);
    free(model);
}

/* The pieces that begin with the bytes seen so far: sorted[begin] to sorted[end - 1]; of these the piece that is just
 * those bytes, if any, comes first. */
typedef struct prefix_range {
    int begin, end;
    int bytes; /* seen so far */
} prefix_range;

/* The first place in the range whose piece has at least `value` as its next byte; all its pieces have a next byte. */
static int first_with_byte(const fb3_unigram *model, prefix_range range, int value)
{
    int low = range.begin, high = range.end;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if ((uint8_t)model->piece[model->sorted[middle]].text[range.bytes] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Narrows the range by one more byte and returns the id of the piece that ends there, or -1. */
static int narrow(const fb3_unigram *model, prefix_range *range, uint8_t byte)
{
    if (range->bytes == 0) {
        range->begin = model->first[byte];
        range->end = model->first[byte + 1];
    } else {
        bool ended = range->begin < range->end && model->piece[model->sorted[range->begin]].bytes == range->bytes;
        if (ended) range->begin++; /* this one has no next byte */
        range->begin = first_with_byte(model, *range, byte);
        range->end = first_with_byte(model, *range, byte + 1);
    }
    range->bytes++;
    if (range->begin == range->end) return -1;
    int id = model->sorted[range->begin];
    return model->piece[id].bytes == range->bytes ? id : -1;
}

int fb3_unigram_find(const fb3_unigram *model, const char *text, size_t bytes)
{
    prefix_range range = {0, model->count, 0};
    int id = -1;
    for (size_t i = 0; i < bytes && range.begin < range.end; i++) id = narrow(model, &range, (uint8_t)text[i]);
    return (size_t)range.bytes == bytes ? id : -1;
}

fb3_status fb3_ids_append(fb3_ids *ids, uint32_t id)
{
    if (ids->count == ids->capacity) {
        int64_t capacity = ids->capacity > 0 ? 2 * ids->capacity : 512;
        uint32_t *grown = realloc(ids->id, (size_t)capacity * sizeof *grown);
        FB3_REQUIRE(grown, FB3_FAILED, "out of memory for %lld token ids", (long long)capacity);
        ids->id = grown;
        ids->capacity = capacity;
    }
    ids->id[ids->count++] = id;
    return FB3_OK;
}

/* The best division of the word's first bytes: its score and its last piece. */
typedef struct path_node {
    double score;
    int64_t start; /* of the last piece, or NOT_REACHED */
    int id;
} path_node;

static void offer(path_node *node, double score, int64_t start, int id)
{
    if (node->start == NOT_REACHED || score > node->score) *node = (path_node){score, start, id};
}

/* Fills node[0..bytes] for every character boundary of the word. */
static void search(const fb3_unigram *model, const char *word, size_t bytes, path_node *node)
{
    for (size_t i = 0; i <= bytes; i++) node[i].start = NOT_REACHED;
    node[0] = (path_node){0.0, 0, model->unknown};
    size_t length;
    for (size_t at = 0; at < bytes; at += length) {
        length = (size_t)fb3_utf8_length(word[at]);
        bool covered = false; /* a piece is exactly this character */
        prefix_range range = {0, model->count, 0};
        for (size_t i = at; i < bytes && range.begin < range.end; i++) {
            int id = narrow(model, &range, (uint8_t)word[i]);
            if (id < 0) continue;
            offer(&node[i + 1], node[at].score + (double)model->piece[id].score, (int64_t)at, id);
            covered = covered || (size_t)range.bytes == length;
        }
        if (!covered) offer(&node[at + length], node[at].score + model->unknown_score, (int64_t)at, model->unknown);
    }
}

static void reverse(uint32_t *id, int64_t count)
{
    for (int64_t i = 0; i < count / 2; i++) {
        uint32_t other = id[count - 1 - i];
        id[count - 1 - i] = id[i];
        id[i] = other;
    }
}

fb3_status fb3_unigram_encode(const fb3_unigram *model, const char *word, size_t bytes, fb3_ids *ids)
{
    enum { SHORT_WORD = 63 };
    path_node short_word[SHORT_WORD + 1], *node = short_word;
    if (bytes > SHORT_WORD) {
        node = malloc((bytes + 1) * sizeof *node);
        FB3_REQUIRE(node, FB3_FAILED, "out of memory for a word of %zu bytes; put spaces into the text", bytes);
    }
    search(model, word, bytes, node);

    fb3_status status = FB3_OK;
    int64_t first = ids->count;
    for (int64_t end = (int64_t)bytes; end > 0; end = node[end].start) {
        bool in_unknown_run =
            node[end].id == model->unknown && ids->count > first && ids->id[ids->count - 1] == (uint32_t)model->unknown;
        if (!in_unknown_run) FB3_TRY_GOTO(fb3_ids_append(ids, (uint32_t)node[end].id), done);
    }
    reverse(ids->id + first, ids->count - first);
done:
    if (node != short_word) free(node);
    return status;
}
