/* The content of an spm.model (sentencepiece_model.proto) that tokenisation needs. */
#ifndef FB3_TEXT_SPM_MODEL_H
#define FB3_TEXT_SPM_MODEL_H

#include "buffer.h"
#include "unigram.h"
#include <stddef.h>

/* The fields of the file that libsentencepiece's interface does not show. */
typedef struct fb3_spm_fields {
    const char *charsmap; /* NormalizerSpec.precompiled_charsmap, in the file's bytes; NULL when there is none */
    size_t charsmap_bytes;
    fb3_buffer vocabulary; /* the file less all but pieces and TrainerSpec */
} fb3_spm_fields;

/* FB3_INPUT when `data` is not such a file, or its model is not a unigram model. */
fb3_status fb3_spm_fields_read(fb3_spm_fields *fields, const void *data, size_t bytes);
void fb3_spm_fields_free(fb3_spm_fields *fields);

/* The pieces, in the order of their ids. */
typedef struct fb3_spm_pieces {
    fb3_piece *piece; /* [count] */
    int count;
    int unknown; /* the id of the piece of the type UNKNOWN */
    char *text;  /* what the pieces point into */
} fb3_spm_pieces;

/* Reads fb3_spm_fields.vocabulary with libsentencepiece, which checks it. FB3_INPUT with its reason. */
fb3_status fb3_spm_pieces_read(fb3_spm_pieces *pieces, const void *vocabulary, size_t bytes);
void fb3_spm_pieces_free(fb3_spm_pieces *pieces);

#endif
