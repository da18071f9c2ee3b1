/* What a tokenizer is made of: shared by tokenizer.c (text to ids) and tokenizer_json.c (the tokenizer as a file). */
#ifndef FB3_TEXT_TOKENIZER_PARTS_H
#define FB3_TEXT_TOKENIZER_PARTS_H

#include "fb3/tokenizer.h"
#include "normalizer.h"
#include "spm_model.h"
#include "unigram.h"

typedef enum fb3_special { FB3_PAD, FB3_CLS, FB3_SEP, FB3_UNK, FB3_MASK, FB3_SPECIALS } fb3_special;

extern const char *const fb3_special_text[FB3_SPECIALS]; /* "[PAD]" ... */

struct fb3_tokenizer {
    char *model; /* the file's bytes */
    size_t model_bytes;
    char sha256[FB3_SHA256_HEX];
    const char *charsmap; /* in `model` */
    size_t charsmap_bytes;

    fb3_spm_pieces pieces;
    fb3_charsmap normalizer;
    fb3_unigram *unigram;
    int special[FB3_SPECIALS]; /* their ids */
};

#endif
