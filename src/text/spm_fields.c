/* The two levels of protocol buffer around a SentencePiece model, read with bounds: which model it is, and its
 * character map. Everything else in the file is libsentencepiece's to read, less what we have no use for: its
 * normaliser's map, which it would trust, and its self-test, which would run at loading.
 *
 * Wire format: a varint key (field number << 3 | wire type), then a varint, 8 bytes, a varint length with as many
 * bytes, or 4 bytes. Field numbers are those of sentencepiece_model.proto. */
#include "spm_model.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { MODEL_PIECES = 1, MODEL_TRAINER_SPEC = 2, MODEL_NORMALIZER_SPEC = 3 };
enum { TRAINER_MODEL_TYPE = 3, NORMALIZER_CHARSMAP = 2 };
enum { MODEL_TYPE_UNIGRAM = 1 }; /* also the type of a file that names none */

typedef struct reader {
    const uint8_t *byte;
    size_t bytes, at;
} reader;

typedef struct record {
    uint64_t field;
    int wire;
    uint64_t value;      /* of a varint */
    const uint8_t *data; /* of a WIRE_BYTES record */
    size_t bytes;
    const uint8_t *start; /* of the record with its key */
    size_t total;
} record;

static bool read_varint(reader *r, uint64_t *value)
{
    enum { BITS_PER_BYTE = 7, VALUE_BITS = 64 };
    *value = 0;
    for (int shift = 0; shift < VALUE_BITS && r->at < r->bytes; shift += BITS_PER_BYTE) {
        uint8_t byte = r->byte[r->at++];
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

/* Reads the next record; false when the bytes are not one. */
static bool read_record(reader *r, record *out)
{
    size_t start = r->at;
    uint64_t key, length;
    if (!read_varint(r, &key)) return false;
    *out = (record){.field = key >> 3, .wire = (int)(key & 7), .start = r->byte + start};
    switch (out->wire) {
    case WIRE_VARINT:
        if (!read_varint(r, &out->value)) return false;
        length = 0;
        break;
    case WIRE_FIXED64:
        length = 8;
        break;
    case WIRE_FIXED32:
        length = 4;
        break;
    case WIRE_BYTES:
        if (!read_varint(r, &length)) return false;
        break;
    default:
        return false;
    }
    if (out->field == 0 || length > r->bytes - r->at) return false;
    out->data = r->byte + r->at;
    out->bytes = (size_t)length;
    r->at += out->bytes;
    out->total = r->at - start;
    return true;
}

static fb3_status fail_not_a_model(size_t at)
{
    return fb3_fail(FB3_INPUT, "is not a SentencePiece model, or damaged (at byte %zu); fetch the file again", at);
}

/* The last value of a field counts, as everywhere in protocol buffers. */
static fb3_status read_trainer_spec(const record *spec, uint64_t *model_type)
{
    reader inner = {spec->data, spec->bytes, 0};
    while (inner.at < inner.bytes) {
        record r;
        size_t at = inner.at;
        if (!read_record(&inner, &r)) return fail_not_a_model(at);
        if (r.field == TRAINER_MODEL_TYPE && r.wire == WIRE_VARINT) *model_type = r.value;
    }
    return FB3_OK;
}

static fb3_status read_normalizer_spec(const record *spec, fb3_spm_fields *fields)
{
    reader inner = {spec->data, spec->bytes, 0};
    while (inner.at < inner.bytes) {
        record r;
        size_t at = inner.at;
        if (!read_record(&inner, &r)) return fail_not_a_model(at);
        if (r.field != NORMALIZER_CHARSMAP || r.wire != WIRE_BYTES) continue;
        fields->charsmap = (const char *)r.data;
        fields->charsmap_bytes = r.bytes;
    }
    return FB3_OK;
}

static fb3_status read_model(fb3_spm_fields *fields, const void *data, size_t bytes)
{
    reader outer = {data, bytes, 0};
    uint64_t model_type = MODEL_TYPE_UNIGRAM;
    while (outer.at < outer.bytes) {
        record r;
        size_t at = outer.at;
        if (!read_record(&outer, &r)) return fail_not_a_model(at);
        if (r.wire != WIRE_BYTES) continue;
        if (r.field == MODEL_TRAINER_SPEC) FB3_TRY(read_trainer_spec(&r, &model_type));
        if (r.field == MODEL_NORMALIZER_SPEC) FB3_TRY(read_normalizer_spec(&r, fields));
        if (r.field == MODEL_TRAINER_SPEC || r.field == MODEL_PIECES)
            FB3_TRY(fb3_buffer_append(&fields->vocabulary, r.start, r.total));
    }
    FB3_REQUIRE(model_type == MODEL_TYPE_UNIGRAM, FB3_INPUT,
                "is a SentencePiece model of type %llu where DeBERTa's is unigram (1); give a DeBERTa-v2 or v3 model's",
                (unsigned long long)model_type);
    FB3_REQUIRE(fields->vocabulary.bytes > 0, FB3_INPUT,
                "holds no pieces; it is not a SentencePiece model, or was cut off");
    return FB3_OK;
}

fb3_status fb3_spm_fields_read(fb3_spm_fields *fields, const void *data, size_t bytes)
{
    *fields = (fb3_spm_fields){0};
    fb3_status status = read_model(fields, data, bytes);
    if (status != FB3_OK) fb3_spm_fields_free(fields);
    return status;
}

void fb3_spm_fields_free(fb3_spm_fields *fields)
{
    fb3_buffer_free(&fields->vocabulary);
    *fields = (fb3_spm_fields){0};
}
