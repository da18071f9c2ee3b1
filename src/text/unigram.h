/* The unigram language model of SentencePiece: the division of a word into pieces whose scores have the largest sum. */
#ifndef FB3_TEXT_UNIGRAM_H
#define FB3_TEXT_UNIGRAM_H

#include "fb3/status.h"
#include <stddef.h>
#include <stdint.h>

/* One piece of the vocabulary; its id is its place in the list. */
typedef struct fb3_piece {
    const char *text; /* UTF-8, not 0-terminated */
    int bytes;
    float score; /* a log probability */
} fb3_piece;

typedef struct fb3_unigram fb3_unigram;

/* Pieces are not empty and differ. `unknown` is the id of what no piece covers. */
fb3_status fb3_unigram_new(fb3_unigram **model, const fb3_piece *piece, int count, int unknown);
void fb3_unigram_free(fb3_unigram *model);

/* The id of a piece, or -1. */
int fb3_unigram_find(const fb3_unigram *model, const char *text, size_t bytes);

/* A growing list of ids. */
typedef struct fb3_ids {
    uint32_t *id;
    int64_t count, capacity;
} fb3_ids;
fb3_status fb3_ids_append(fb3_ids *ids, uint32_t id);

/* Appends the ids of `word` (valid UTF-8). A maximal run of characters that no piece covers is one unknown. */
fb3_status fb3_unigram_encode(const fb3_unigram *model, const char *word, size_t bytes, fb3_ids *ids);

#endif
