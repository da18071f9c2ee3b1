/* Safetensors headers and config.json files that were damaged or made to mislead: each is refused with one line. */
#include "io_test.h"

#include "fb3/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, DATA_BYTES = 64 };

/* A file with this header length, header and DATA_BYTES bytes of data. */
static const char *safetensors(uint64_t length, const char *header, size_t header_bytes)
{
    const char *path = scratch_path("hostile.safetensors");
    unsigned char *file = calloc(1, LENGTH_BYTES + header_bytes + DATA_BYTES);
    assert_non_null(file);
    for (int i = 0; i < LENGTH_BYTES; i++) file[i] = (unsigned char)(length >> 8 * i);
    memcpy(file + LENGTH_BYTES, header, header_bytes);
    write_file(path, file, LENGTH_BYTES + header_bytes + DATA_BYTES);
    free(file);
    return path;
}

static const char *with_header(const char *header)
{
    return safetensors(strlen(header), header, strlen(header));
}

typedef struct header_case {
    const char *header, *refusal;
} header_case;

#define TENSOR(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define GOOD                          TENSOR("F32", "[4,4]", "[0,64]")

static const header_case cases[] = {
    {"", "no safetensors header"},
    {"{}", "64 bytes behind its last tensor"},
    {"[]", "no safetensors header"},
    {" {\"a\":" GOOD "}", "no safetensors header"},
    {"{\"a\":" GOOD "}x", "not valid JSON"},
    {"{\"a\":" GOOD, "not valid JSON"},
    {"{\"a\":" GOOD ",\"a\":" GOOD "}", "not valid JSON"},
    {"{\"a\":" TENSOR("F32", "[2,4]", "[0,32]") ",\"b\":" TENSOR("F32", "[8]", "[28,60]") "}", "overlap at byte 32"},
    {"{\"a\":" GOOD ",\"b\":" GOOD "}", "overlap"},
    {"{\"a\":" TENSOR("F32", "[7]", "[0,28]") ",\"b\":" TENSOR("F32", "[8]", "[32,64]") "}", "a hole at byte 28"},
    {"{\"a\":" TENSOR("F32", "[8]", "[0,32]") "}", "32 bytes behind its last tensor"},
    {"{\"a\":" TENSOR("F32", "[17]", "[0,68]") "}", "there are only 64"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "[0,9223372036854775807]") "}", "there are only 64"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "[0,9223372036854775808]") "}", "not valid JSON"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "[64,0]") "}", "no valid data_offsets"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "[-64,0]") "}", "no valid data_offsets"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "[0]") "}", "no valid data_offsets"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "[0,64,64]") "}", "no valid data_offsets"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "[0.0,64.0]") "}", "no valid data_offsets"},
    {"{\"a\":" TENSOR("F32", "[4,4]", "\"0,64\"") "}", "no valid data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4,4]}}", "no valid data_offsets"},
    {"{\"a\":" TENSOR("F33", "[4,4]", "[0,64]") "}", "the type 'F33', which is not known"},
    {"{\"a\":" TENSOR("F\\u001b[31m", "[4,4]", "[0,64]") "}", "the type 'F?[31m', which"},
    {"{\"a\":{\"dtype\":32,\"shape\":[4,4],\"data_offsets\":[0,64]}}", "the type '', which is not known"},
    {"{\"a\":{\"shape\":[4,4],\"data_offsets\":[0,64]}}", "the type '', which is not known"},
    {"{\"a\":" TENSOR("F16", "[4,4]", "[0,64]") "}", "16 elements of type F16 in 64 bytes"},
    {"{\"a\":" TENSOR("F32", "[4,5]", "[0,64]") "}", "20 elements of type F32 in 64 bytes"},
    {"{\"a\":" TENSOR("F32", "[4611686018427387904]", "[0,64]") "}", "in 64 bytes"},
    {"{\"a\":" TENSOR("F32", "[4294967296,4294967296]", "[0,64]") "}", "the shape of tensor a is not possible"},
    {"{\"a\":" TENSOR("F32", "[-4,-4]", "[0,64]") "}", "the shape of tensor a is not possible"},
    {"{\"a\":" TENSOR("F32", "[4.0,4]", "[0,64]") "}", "the shape of tensor a is not possible"},
    {"{\"a\":" TENSOR("F32", "[1,1,1,4,4]", "[0,64]") "}", "5 dimensions"},
    {"{\"a\":" TENSOR("F32", "{}", "[0,64]") "}", "has no shape"},
    {"{\"a\":[]}", "entry a is not an object"},
    {"{\"a\\nb\":" GOOD "}", "the name 'a?b', empty, too long or not printable"},
    {"{\"\":" GOOD "}", "the name ''"},
    {"{\"a\\u0000\":" GOOD "}", "not valid JSON"},
    {"{\"\xff\":" GOOD "}", "not valid JSON"},
};

static void headers(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(fb3_safetensors_open(&file, with_header(cases[i].header)), cases[i].refusal);
    assert_ok(fb3_safetensors_open(&file, with_header("{\"a\":" GOOD ",\"__metadata__\":{\"format\":\"pt\"}}   ")));
    fb3_tensor_file_close(file);
}

static void header_lengths(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    static const char header[] = "{\"a\":" GOOD "}";
    size_t bytes = strlen(header);
    assert_refused(fb3_safetensors_open(&file, safetensors((uint64_t)1 << 63, header, bytes)), "more than can be");
    assert_refused(fb3_safetensors_open(&file, safetensors(UINT64_MAX, header, bytes)), "more than can be");
    assert_refused(fb3_safetensors_open(&file, safetensors(bytes + DATA_BYTES + 1, header, bytes)), "more than can be");
    assert_refused(fb3_safetensors_open(&file, safetensors(bytes + DATA_BYTES, header, bytes)), "not valid JSON");
    assert_refused(fb3_safetensors_open(&file, safetensors(bytes - 1, header, bytes)), "not valid JSON");
    write_file(scratch_path("short"), "{\"a\":{}", 7);
    assert_refused(fb3_safetensors_open(&file, scratch_path("short")), "7 bytes, too few");
    write_file(scratch_path("short"), "", 0);
    assert_refused(fb3_safetensors_open(&file, scratch_path("short")), "0 bytes, too few");
}

/* Every shorter file is refused, wherever it was cut. */
static void truncated(void **state)
{
    (void)state;
    size_t bytes;
    fb3_tensor_file *file;
    unsigned char *whole = read_whole(golden_path("odd.safetensors"), &bytes);
    for (size_t length = 0; length < bytes; length++) {
        write_file(scratch_path("cut.safetensors"), whole, length);
        assert_refused(fb3_safetensors_open(&file, scratch_path("cut.safetensors")), "");
    }
    free(whole);
}

static void deep_and_long_headers(void **state)
{
    (void)state;
    enum { DEPTH = 100000, NAME = 300 };
    fb3_tensor_file *file;
    char *header = malloc(2 * DEPTH);
    assert_non_null(header);
    memset(header, '[', 2 * DEPTH);
    memcpy(header, "{\"a\":", 5);
    assert_refused(fb3_safetensors_open(&file, safetensors(DEPTH, header, DEPTH)), "not valid JSON");
    sprintf(header, "{\"%0*d\":" GOOD "}", NAME, 0);
    assert_refused(fb3_safetensors_open(&file, with_header(header)), "too long");
    free(header);
}

static void too_many_tensors(void **state)
{
    (void)state;
    enum { COUNT = (1 << 16) + 1, ENTRY = 64 };
    fb3_tensor_file *file;
    char *header = malloc((size_t)COUNT * ENTRY + 2);
    assert_non_null(header);
    size_t used = (size_t)sprintf(header, "{");
    for (int i = 0; i < COUNT; i++)
        used += (size_t)sprintf(header + used, "%s\"%d\":" TENSOR("U8", "[0]", "[0,0]"), i ? "," : "", i);
    strcpy(header + used, "}");
    assert_refused(fb3_safetensors_open(&file, with_header(header)), "more than 65536 tensors");
    free(header);
}

/* --- config.json -------------------------------------------------------------------------------------------------- */

/* golden/plain with config.json replaced by `config`, or with one text in it replaced. */
static const char *with_config(const char *from, const char *to)
{
    size_t bytes;
    assert_ok(fb3_folder_make(scratch_path("hostile")));
    unsigned char *weights = read_whole(golden_path("plain/model.safetensors"), &bytes);
    write_file(scratch_path("hostile/model.safetensors"), weights, bytes);
    free(weights);
    if (!from) {
        write_file(scratch_path("hostile/config.json"), to, strlen(to));
        return scratch_path("hostile");
    }
    char *config = (char *)read_whole(golden_path("plain/config.json"), &bytes), *at = strstr(config, from);
    assert_non_null(at);
    char *changed = fb3_format("%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    write_file(scratch_path("hostile/config.json"), changed, strlen(changed));
    free(changed);
    free(config);
    return scratch_path("hostile");
}

static void configs(void **state)
{
    (void)state;
    fb3_hf_dir *hf;
    enum { DEPTH = 1 << 19 };
    assert_refused(fb3_hf_open(&hf, with_config("\"vocab_size\": 40", "\"vocab_size\": 8388608")), "[8388608, 16]");
    assert_refused(fb3_hf_open(&hf, with_config("\"vocab_size\": 40", "\"vocab_size\": -40")), "vocab_size");
    assert_refused(fb3_hf_open(&hf, with_config("\"vocab_size\": 40", "\"vocab_size\": 9223372036854775807")),
                   "vocab_size");
    assert_refused(fb3_hf_open(&hf, with_config("\"vocab_size\": 40", "\"vocab_size\": 92233720368547758080")),
                   "not JSON");
    assert_refused(fb3_hf_open(&hf, with_config("\"vocab_size\": 40", "\"vocab_size\": \"40\"")), "vocab_size");
    assert_refused(fb3_hf_open(&hf, with_config("\"hidden_size\": 16", "\"hidden_size\": 0")), "hidden_size");
    assert_refused(fb3_hf_open(&hf, with_config("_hidden_layers\": 1", "_hidden_layers\": 1000")), "missing");
    assert_refused(fb3_hf_open(&hf, with_config("_hidden_layers\": 1", "_hidden_layers\": 2000000000")), "layers");
    assert_refused(fb3_hf_open(&hf, with_config("1e-07", "1e999")), "config.json");
    assert_refused(fb3_hf_open(&hf, with_config("\"vocab_size\"", "\"hidden_size\"")), "not JSON");
    assert_refused(fb3_hf_open(&hf, with_config("\"relative_attention\": true", "\"relative_attention\": false")),
                   "relative_attention");
    char *deep = malloc(DEPTH + 1);
    assert_non_null(deep);
    memset(deep, '[', DEPTH);
    deep[DEPTH] = 0;
    assert_refused(fb3_hf_open(&hf, with_config(NULL, deep)), "not JSON");
    free(deep);
    char *large = fb3_format("{\"a\":\"%0*d\"}", 1 << 20, 0);
    assert_non_null(large);
    assert_refused(fb3_hf_open(&hf, with_config(NULL, large)), "more than the 1048576");
    free(large);
    assert_refused(fb3_hf_open(&hf, with_config(NULL, "\xff\xfe{}")), "not JSON");
    /* labels that do not fit are left out */
    assert_ok(fb3_hf_open(&hf, with_config("\"1\": \"syntax\"", "\"1\": 2")));
    assert_null(hf->label_names);
    fb3_hf_close(hf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),   cmocka_unit_test(header_lengths),
        cmocka_unit_test(truncated), cmocka_unit_test(deep_and_long_headers),
        cmocka_unit_test(configs),   cmocka_unit_test(too_many_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, clear_scratch);
}
