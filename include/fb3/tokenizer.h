/* DeBERTa-v3 tokenisation. libsentencepiece reads the spm.model (src/text/sentencepiece.cc, its face, is the only C++
 * file); normalisation and the search for the best division are ours, because the library's differ from what follows.
 *
 * The ids equal those of the Hugging Face *fast* tokenizer (transformers 4.57.1): a maximal run of characters that are
 * no pieces is one [UNK]; [SEP], [MASK] and the other special tokens written in a text become their ids; [CLS] x [SEP];
 * truncation keeps max_length - 2 pieces. */
#ifndef FB3_TOKENIZER_H
#define FB3_TOKENIZER_H

#include "fb3/status.h"
#include "fb3/hash.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fb3_tokenizer fb3_tokenizer;

/* `path`: a directory with spm.model, or the file. FB3_INPUT: not there, not a SentencePiece unigram model, or one
 * without [PAD] [CLS] [SEP] [UNK] pieces. added_tokens.json and tokenizer_config.json beside it are read for [MASK]
 * and do_lower_case / split_by_punct (true is refused by name: DeBERTa-v3's are false). */
fb3_status fb3_tokenizer_open(fb3_tokenizer **tokenizer, const char *path);
/* The same from the bytes of an spm.model (a checkpoint carries them). `data` is copied. */
fb3_status fb3_tokenizer_open_memory(fb3_tokenizer **tokenizer, const void *data, size_t bytes);
void fb3_tokenizer_close(fb3_tokenizer *tokenizer);

/* Token ids of `text` (UTF-8, `bytes` long) with [CLS] and [SEP], at most max_length of them (>= 3), into *ids
 * (malloc'ed or grown with realloc; *capacity in ids). *untruncated is the length before truncation. Thread safe. */
fb3_status fb3_tokenizer_encode(const fb3_tokenizer *tokenizer, const char *text, int64_t bytes, int max_length,
                                uint32_t **ids, int64_t *capacity, int *count, int *untruncated);

/* Rows that the word table must have for this tokenizer: 128,100 for DeBERTa-v3's (128,000 pieces, [MASK], and the
 * rows that were padded on), else the number of ids with [MASK], rounded up to a multiple of 100. */
int fb3_tokenizer_vocabulary(const fb3_tokenizer *tokenizer);
int fb3_tokenizer_pieces(const fb3_tokenizer *tokenizer); /* ids that can come out, [MASK] included */

/* The file's bytes (owned by the tokenizer) and their sha256. */
const void *fb3_tokenizer_model(const fb3_tokenizer *tokenizer, size_t *bytes);
const char *fb3_tokenizer_sha256(const fb3_tokenizer *tokenizer);

/* tokenizer.json (and only that: tokenizer_config.json and special_tokens_map.json are constants of hf_dir.c) that
 * gives the same ids as a PreTrainedTokenizerFast in transformers 4.57 and 5.23: normaliser with the model's
 * precompiled_charsmap, Metaspace, Unigram with scores, the [CLS] x [SEP] template. Caller frees. */
fb3_status fb3_tokenizer_json(const fb3_tokenizer *tokenizer, char **json, size_t *bytes);

const char *fb3_sentencepiece_version(void);

#ifdef __cplusplus
}
#endif

#endif
