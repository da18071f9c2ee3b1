/* The Viterbi search of the unigram model (Kudo 2018, "Subword Regularization"), with sums in double as in the Hugging
 * Face fast tokenizer. libsentencepiece's own search adds in float, where divisions that tie exactly ("!!!" + "!!!!"
 * and
 * "!!!!" + "!!!") come out in either order: it gives other ids for about one word in seven made of one repeated
 * character, so the search is ours. On a tie the division found first wins: the one whose last piece starts first.
 *
 * The vocabulary is a trie over bytes. The children of a node lie together, and so do the bytes that lead to them, in
 * an array of their own: a step is a memchr() over a few bytes. */
#include "unigram.h"

#include "fb3/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What an unknown character costs beyond the least likely piece: sentencepiece's kUnkPenalty. */
static const double UNKNOWN_PENALTY = 10.0;

enum { BYTE_VALUES = 256, NOT_REACHED = -1, NO_PIECE = -1, ROOT = 0 };

typedef struct trie_node {
    int first, count; /* its children */
    int id;           /* of the piece that ends here, or NO_PIECE */
    float score;      /* that piece's */
} trie_node;

struct fb3_unigram {
    trie_node *node; /* [nodes], the root first */
    uint8_t *byte;   /* [nodes] the byte that leads to a node */
    int nodes, capacity;
    int start[BYTE_VALUES]; /* the root's children by byte, or -1 */
    int unknown;
    double unknown_score;
};

static int compare_pieces(const void *a, const void *b, void *pieces)
{
    const fb3_piece *x = (const fb3_piece *)pieces + *(const int *)a, *y = (const fb3_piece *)pieces + *(const int *)b;
    int order = memcmp(x->text, y->text, (size_t)(x->bytes < y->bytes ? x->bytes : y->bytes));
    return order ? order : x->bytes - y->bytes;
}

/* The pieces of a node's subtree: sorted[begin .. end - 1], all with the same first `depth` bytes. */
typedef struct subtree {
    int begin, end, depth;
} subtree;

static fb3_status grow(fb3_unigram *model, subtree **subtrees)
{
    if (model->nodes < model->capacity) return FB3_OK;
    int capacity = model->capacity > 0 ? 2 * model->capacity : 1 << 12;
    trie_node *node = realloc(model->node, (size_t)capacity * sizeof *node);
    if (node) model->node = node;
    uint8_t *byte = realloc(model->byte, (size_t)capacity);
    if (byte) model->byte = byte;
    subtree *grown = realloc(*subtrees, (size_t)capacity * sizeof *grown);
    if (grown) *subtrees = grown;
    FB3_REQUIRE(node && byte && grown, FB3_FAILED, "out of memory for a vocabulary");
    model->capacity = capacity;
    return FB3_OK;
}

static fb3_status add_node(fb3_unigram *model, subtree **subtrees, uint8_t byte, subtree pieces)
{
    FB3_TRY(grow(model, subtrees));
    model->node[model->nodes] = (trie_node){.id = NO_PIECE};
    model->byte[model->nodes] = byte;
    (*subtrees)[model->nodes++] = pieces;
    return FB3_OK;
}

/* Level by level, so that children are neighbours; the list in byte order has the pieces of each subtree together. */
static fb3_status build(fb3_unigram *model, subtree **subtrees, const fb3_piece *piece, const int *sorted, int count)
{
    FB3_TRY(add_node(model, subtrees, 0, (subtree){0, count, 0}));
    for (int n = 0; n < model->nodes; n++) {
        subtree s = (*subtrees)[n];
        if (s.begin < s.end && piece[sorted[s.begin]].bytes == s.depth) {
            model->node[n].id = sorted[s.begin];
            model->node[n].score = piece[sorted[s.begin++]].score;
        }
        model->node[n].first = model->nodes;
        while (s.begin < s.end) {
            char byte = piece[sorted[s.begin]].text[s.depth];
            int end = s.begin;
            while (end < s.end && piece[sorted[end]].text[s.depth] == byte) end++;
            FB3_TRY(add_node(model, subtrees, (uint8_t)byte, (subtree){s.begin, end, s.depth + 1}));
            s.begin = end;
        }
        model->node[n].count = model->nodes - model->node[n].first;
    }
    for (int b = 0; b < BYTE_VALUES; b++) model->start[b] = -1;
    for (int c = 0; c < model->node[ROOT].count; c++) model->start[model->byte[ROOT + 1 + c]] = ROOT + 1 + c;
    return FB3_OK;
}

fb3_status fb3_unigram_new(fb3_unigram **model, const fb3_piece *piece, int count, int unknown)
{
    fb3_status status = FB3_OK;
    subtree *subtrees = NULL;
    *model = NULL;
    fb3_unigram *made = calloc(1, sizeof *made);
    int *sorted = malloc((size_t)count * sizeof *sorted);
    FB3_REQUIRE_GOTO(made && sorted, done, FB3_FAILED, "out of memory for a vocabulary of %d pieces", count);
    double lowest = 0;
    for (int i = 0; i < count; i++) {
        sorted[i] = i;
        if (i == 0 || piece[i].score < lowest) lowest = piece[i].score;
    }
    made->unknown = unknown;
    made->unknown_score = lowest - UNKNOWN_PENALTY;
    qsort_r(sorted, (size_t)count, sizeof *sorted, compare_pieces, (void *)(uintptr_t)piece);
    FB3_TRY_GOTO(build(made, &subtrees, piece, sorted, count), done);
    *model = made;
    made = NULL;
done:
    fb3_unigram_free(made);
    free(sorted);
    free(subtrees);
    return status;
}

void fb3_unigram_free(fb3_unigram *model)
{
    if (!model) return;
    free(model->node);
    free(model->byte);
    free(model);
}

/* The child that a byte leads to, or -1. */
static inline int child(const fb3_unigram *model, int node, uint8_t byte)
{
    if (node == ROOT) return model->start[byte];
    const trie_node *n = &model->node[node];
    if (n->count == 0) return -1;
    const uint8_t *bytes = model->byte + n->first;
    if (n->count == 1) return bytes[0] == byte ? n->first : -1;
    const uint8_t *found = memchr(bytes, byte, (size_t)n->count);
    return found ? n->first + (int)(found - bytes) : -1;
}

int fb3_unigram_find(const fb3_unigram *model, const char *text, size_t bytes)
{
    int node = ROOT;
    for (size_t i = 0; i < bytes && node >= 0; i++) node = child(model, node, (uint8_t)text[i]);
    return node > ROOT ? model->node[node].id : -1;
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
        int n = ROOT;
        for (size_t i = at; i < bytes; i++) {
            n = child(model, n, (uint8_t)word[i]);
            if (n < 0) break;
            int id = model->node[n].id;
            if (id == NO_PIECE) continue;
            offer(&node[i + 1], node[at].score + (double)model->node[n].score, (int64_t)at, id);
            covered = covered || i + 1 - at == length;
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
