/* What fb3_tokenizer_open refuses, and how: files that are no models, models that are not DeBERTa's, side files that
 * change the meaning, and damaged bytes, which may be refused or not but never crash. */
#include "golden.h"

#include "fb3/file.h"
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static char folder[] = "/tmp/fb3-test-tokenizer-XXXXXX";
static char *model; /* the sample's spm.model */
static size_t model_bytes;

static const char *file(const char *name)
{
    static char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    return fb3_file_read(test_path("FB3_SOURCE_DIR", "tests/sample/spm.model"), SIZE_MAX, &model, &model_bytes);
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"spm.model", "added_tokens.json", "tokenizer_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(file(names[i]));
    free(model);
    return rmdir(folder);
}

static void assert_refused(fb3_status status, const fb3_tokenizer *tokenizer, const char *error)
{
    assert_int_equal(status, FB3_INPUT);
    assert_null(tokenizer);
    if (!strstr(fb3_error_text(), error)) fail_msg("not '%s': %s", error, fb3_error_text());
    assert_null(strchr(fb3_error_text(), '\n'));
}

static void expect_path_refused(const char *path, const char *error)
{
    fb3_tokenizer *tokenizer = (fb3_tokenizer *)folder; /* must become NULL */
    fb3_status status = fb3_tokenizer_open(&tokenizer, path);
    assert_refused(status, tokenizer, error);
}

static void expect_bytes_refused(const void *data, size_t bytes, const char *error)
{
    fb3_tokenizer *tokenizer = (fb3_tokenizer *)folder;
    fb3_status status = fb3_tokenizer_open_memory(&tokenizer, data, bytes);
    assert_refused(status, tokenizer, error);
}

static void test_paths(void **state)
{
    (void)state;
    expect_path_refused("/nowhere/spm.model", "/nowhere/spm.model");
    expect_path_refused(folder, "holds no spm.model");
    assert_ok(fb3_file_write(file("spm.model"), "garbage", 7));
    expect_path_refused(folder, "spm.model: is not a SentencePiece model");
    expect_path_refused(file("spm.model"), "spm.model: is not a SentencePiece model");
}

/* Bytes with their count, so that NUL bytes can be among them. */
#define BYTES(literal) literal, sizeof(literal) - 1

static void test_no_models(void **state)
{
    (void)state;
    expect_bytes_refused(BYTES(""), "holds no pieces");
    expect_bytes_refused(BYTES("\0\0\0\0"), "is not a SentencePiece model");
    expect_bytes_refused(BYTES("{\"version\": \"1.0\"}"), "is not a SentencePiece model");
    expect_bytes_refused(BYTES("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"), "is not a SentencePiece model");
    expect_bytes_refused(BYTES("\x0A\x05xy"), "is not a SentencePiece model");        /* longer than the file */
    expect_bytes_refused(BYTES("\x12\x03\x1A\x05x"), "is not a SentencePiece model"); /* longer than its message */
    expect_bytes_refused(BYTES("\x22\x00"), "holds no pieces");                       /* another field alone */
    expect_bytes_refused(BYTES("\x0A\x00"), "libsentencepiece refuses it");           /* an empty piece */
    expect_bytes_refused(BYTES("\x0A\x03\x0A\x01x"), "libsentencepiece refuses it");  /* no unknown piece */
}

/* The sample's model with `more` behind it: of a field that is there twice, protocol buffers take the last. */
static void expect_extended_refused(const char *more, size_t bytes, const char *error)
{
    char *data = malloc(model_bytes + bytes);
    memcpy(data, model, model_bytes);
    memcpy(data + model_bytes, more, bytes);
    expect_bytes_refused(data, model_bytes + bytes, error);
    free(data);
}

/* The sample's model with the first `from` replaced by `to`, which is as long. */
static void expect_replaced_refused(const char *from, const char *to, size_t bytes, const char *error)
{
    char *data = malloc(model_bytes);
    memcpy(data, model, model_bytes);
    char *place = memmem(data, model_bytes, from, bytes);
    assert_non_null(place);
    memcpy(place, to, bytes);
    expect_bytes_refused(data, model_bytes, error);
    free(data);
}

static void test_other_models(void **state)
{
    (void)state;
    expect_extended_refused(BYTES("\x12\x02\x18\x02"), "of type 2"); /* byte pair encoding */
    expect_extended_refused(BYTES("\x12\x02\x18\x04"), "of type 4"); /* characters */
    /* Character maps: shorter than its count, no replacements' end, a trie too long, replacements not UTF-8. */
    expect_extended_refused(BYTES("\x1A\x05\x12\x03xyz"), "its character map is damaged");
    expect_extended_refused(BYTES("\x1A\x0B\x12\x09\x04\0\0\0\0\0\0\0x"), "its character map is damaged");
    expect_extended_refused(BYTES("\x1A\x0B\x12\x09\xFC\xFF\xFF\xFF\0\0\0\0\0"), "its character map is damaged");
    expect_extended_refused(BYTES("\x1A\x0C\x12\x0A\x04\0\0\0\0\0\0\0\xFF\0"), "its character map is damaged");
    /* Pieces: a score that is no number, a text that is not UTF-8, one that is there already, one that is cut off. */
    expect_extended_refused(BYTES("\x0A\x0A\x0A\x01~\x15\0\0\xC0\x7F\x18\x01"), "has no finite score");
    expect_extended_refused(BYTES("\x0A\x0A\x0A\x01\xFF\x15\0\0\x80\xBF\x18\x01"), "not valid UTF-8");
    expect_extended_refused(BYTES("\x0A\x0A\x0A\x01s\x15\0\0\x80\xBF\x18\x01"), "libsentencepiece refuses it");
    expect_extended_refused(BYTES("\x0A\x0C\x0A"), "is not a SentencePiece model");
    expect_replaced_refused("[PAD]", "[pad]", 5, "has no piece [PAD]");
    expect_replaced_refused("[CLS]", "[cls]", 5, "has no piece [CLS]");
    expect_replaced_refused("[SEP]", "[sep]", 5, "has no piece [SEP]");
    expect_replaced_refused("[UNK]", "[unk]", 5, "has no piece [UNK]");
}

static void write_model_and(const char *name, const char *text)
{
    assert_ok(fb3_file_write(file("spm.model"), model, model_bytes));
    unlink(file("added_tokens.json"));
    unlink(file("tokenizer_config.json"));
    if (name) assert_ok(fb3_file_write(file(name), text, strlen(text)));
}

static void test_side_files(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *error; /* error NULL: accepted */
    } cases[] = {
        {NULL, NULL, NULL},
        {"added_tokens.json", "{}", NULL},
        {"added_tokens.json", "{\"[MASK]\": 783}", NULL},
        {"added_tokens.json", "{\"[MASK]\": 783, \"[PAD]\": 0, \"[UNK]\": 3}", NULL},
        {"added_tokens.json", "{\"[MASK]\": 784}", "the id of [MASK] is not 783"},
        {"added_tokens.json", "{\"[MASK]\": \"783\"}", "the id of [MASK] is not 783"},
        {"added_tokens.json", "{\"[SEP]\": 5}", "the id of [SEP] is not 2"},
        {"added_tokens.json", "{\"[MASK]\": 783, \"<nl>\": 784}", "the added token '<nl>' is not supported"},
        {"added_tokens.json", "[783]", "is not a JSON object"},
        {"added_tokens.json", "{\"[MASK]\": 783", "is not a JSON object"},
        {"added_tokens.json", "", "is not a JSON object"},
        {"tokenizer_config.json", "{\"do_lower_case\": false, \"split_by_punct\": false}", NULL},
        {"tokenizer_config.json", "{\"model_max_length\": 1000000000000000019884624838656}", NULL},
        {"tokenizer_config.json", "{\"do_lower_case\": true}", "do_lower_case: true is not supported"},
        {"tokenizer_config.json", "{\"split_by_punct\": true}", "split_by_punct: true is not supported"},
        {"tokenizer_config.json", "nonsense", "is not a JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_model_and(cases[i].name, cases[i].text);
        if (cases[i].error) {
            expect_path_refused(folder, cases[i].error);
            expect_path_refused(file("spm.model"), cases[i].error);
            assert_non_null(strstr(fb3_error_text(), cases[i].name));
        } else {
            fb3_tokenizer *tokenizer;
            assert_ok(fb3_tokenizer_open(&tokenizer, folder));
            fb3_tokenizer_close(tokenizer);
        }
    }
}

static void test_names_of_a_file(void **state)
{
    (void)state;
    char here[PATH_BYTES];
    assert_non_null(getcwd(here, sizeof here));
    write_model_and("tokenizer_config.json", "{\"do_lower_case\": true}");
    assert_int_equal(chdir(folder), 0);
    expect_path_refused("spm.model", "./tokenizer_config.json: do_lower_case");
    expect_path_refused(".", "./tokenizer_config.json: do_lower_case");
    assert_int_equal(chdir(here), 0);
}

/* Opens bytes that may be damaged; a tokenizer that comes of it must give ids that it has. */
static bool survives(const char *data, size_t bytes)
{
    static const char text[] = "However, the caf\xC3\xA9 (e\xCC\x81) is \xEF\xAC\x81ne\xE2\x80\xA6 \xF0\x9F\x98\x80 "
                               "[SEP] \xE3\x8E\x8F\xCC\x81 \xEF\xBC\xA1\xEF\xBC\xA2!!! \x01\xC2\xAA\xCC\x80\n";
    fb3_tokenizer *tokenizer;
    fb3_status status = fb3_tokenizer_open_memory(&tokenizer, data, bytes);
    if (status != FB3_OK) {
        assert_int_equal(status, FB3_INPUT);
        assert_true(strlen(fb3_error_text()) > 0);
        assert_null(strchr(fb3_error_text(), '\n'));
        return false;
    }
    uint32_t *ids = NULL;
    int64_t capacity = 0;
    int count, untruncated;
    assert_ok(fb3_tokenizer_encode(tokenizer, text, sizeof text - 1, NO_LIMIT, &ids, &capacity, &count, &untruncated));
    for (int i = 0; i < count; i++) assert_true(ids[i] < (uint32_t)fb3_tokenizer_pieces(tokenizer));
    free(ids);
    fb3_tokenizer_close(tokenizer);
    return true;
}

static void test_truncated_models(void **state)
{
    (void)state;
    enum { PIECES_END = 12000, MAP_STEP = 5003 };
    /* Exact copies, so that a sanitizer sees a read behind the end. */
    for (size_t bytes = 0; bytes < model_bytes; bytes += bytes < PIECES_END ? 37 : MAP_STEP) {
        char *copy = malloc(bytes + !bytes);
        memcpy(copy, model, bytes);
        survives(copy, bytes);
        free(copy);
    }
    for (size_t left = 1; left < 200; left++) survives(model, model_bytes - left);
}

/* Where a flip lands: all of the file, or its pieces and settings, which are a tenth of it. */
static void test_flipped_bits(void **state)
{
    (void)state;
    enum { FLIPS = 3000, PIECES_END = 12000, SETTINGS = 600 };
    unsigned seed = 3;
    int opened = 0;
    char *data = malloc(model_bytes);
    for (int i = 0; i < FLIPS; i++) {
        memcpy(data, model, model_bytes);
        int flips = 1 + rand_r(&seed) % 3;
        for (int f = 0; f < flips; f++) {
            size_t place = (size_t)rand_r(&seed);
            place = i % 3 == 0   ? place % model_bytes
                    : i % 3 == 1 ? place % PIECES_END
                                 : model_bytes - 1 - place % SETTINGS;
            data[place] = (char)(data[place] ^ 1 << rand_r(&seed) % 8);
        }
        opened += survives(data, model_bytes);
    }
    free(data);
    print_message("%d of %d flipped models open\n", opened, FLIPS);
    assert_in_range(opened, 1, FLIPS - 1);
}

static void test_random_bytes(void **state)
{
    (void)state;
    enum { FILES = 2000, MOST_BYTES = 300 };
    static const char likely[] = {0x0A, 0x12, 0x1A, 0x0A, 0x15, 0x18, 1, 2, 3, 5, 0, 'a'};
    unsigned seed = 4;
    for (int i = 0; i < FILES; i++) {
        char data[MOST_BYTES];
        size_t bytes = (size_t)rand_r(&seed) % MOST_BYTES;
        for (size_t k = 0; k < bytes; k++)
            data[k] = i % 2 ? (char)rand_r(&seed) : likely[(size_t)rand_r(&seed) % sizeof likely];
        survives(data, bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),           cmocka_unit_test(test_no_models),
        cmocka_unit_test(test_other_models),    cmocka_unit_test(test_side_files),
        cmocka_unit_test(test_names_of_a_file), cmocka_unit_test(test_truncated_models),
        cmocka_unit_test(test_flipped_bits),    cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests_name("tokenizer_files", tests, set_up, tear_down);
}
