/* Checkpoints that are incomplete, of another kind, or were changed to mislead, without a hash file that would show it:
 * each is refused with one line. */
#include "checkpoint_test.h"

#include "fb3/file.h"
#include "fb3/h5.h"
#include "fb3/log.h"

#include <stdlib.h>
#include <string.h>

static trained_model model;

static int make_model(void **state)
{
    (void)state;
    fb3_log_identity(1, 2, ""); /* every file here lacks its hash: only rank 0 would warn */
    make_trained(&model);
    return 0;
}

static int free_model(void **state)
{
    free_trained(&model);
    return clear_scratch(state);
}

/* Opens and reads everything. */
static fb3_status read_all(const char *path)
{
    fb3_checkpoint *checkpoint;
    FB3_TRY(fb3_checkpoint_open(&checkpoint, path));
    fb3_status status = read_step(&model, checkpoint);
    fb3_checkpoint_close(checkpoint);
    return status;
}

/* --- changes ------------------------------------------------------------------------------------------------------ */

static void drop_attribute(hid_t file, const char *name)
{
    assert_true(H5Adelete_by_name(file, "/train", name, H5P_DEFAULT) >= 0);
}

static void set_int(hid_t file, const char *name, int64_t value)
{
    hid_t train = H5Gopen2(file, "train", H5P_DEFAULT);
    drop_attribute(file, name);
    assert_ok(fb3_h5_set_int(train, name, value));
    H5Gclose(train);
}

static void set_text(hid_t file, const char *name, const char *text)
{
    hid_t train = H5Gopen2(file, "train", H5P_DEFAULT);
    drop_attribute(file, name);
    assert_ok(fb3_h5_set_text(train, name, text));
    H5Gclose(train);
}

static void drop(hid_t file, const char *name)
{
    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
}

static void put(hid_t file, const char *name, hid_t type, int rank, const hsize_t *dims, const void *data)
{
    assert_ok(fb3_h5_write(file, name, type, rank, dims, data));
}

static void replace_config(hid_t file, const char *from, const char *to)
{
    char *json = fb3_model_config_json(&tiny_model), *at = from ? strstr(json, from) : json;
    assert_non_null(at);
    char *changed = fb3_format("%.*s%s%s", (int)(at - json), json, to, from ? at + strlen(from) : "");
    hsize_t bytes = strlen(changed);
    drop(file, "model_config");
    put(file, "model_config", H5T_NATIVE_UINT8, 1, &bytes, changed);
    free(changed);
    free(json);
}

static const float zeros[4096];
static const hsize_t two[1] = {2}, three[1] = {3}, one_one[2] = {1, 1}, vast[2] = {(hsize_t)1 << 40, 16};

static void not_marked_complete(hid_t file)
{
    drop_attribute(file, "complete");
}
static void marked_incomplete(hid_t file)
{
    set_int(file, "complete", 0);
}
static void complete_is_text(hid_t file)
{
    set_text(file, "complete", "1");
}
static void newer_format(hid_t file)
{
    set_int(file, "format_version", 2);
}
static void no_step(hid_t file)
{
    drop_attribute(file, "step");
}
static void negative_step(hid_t file)
{
    set_int(file, "step", -1);
}
static void wide_fold(hid_t file)
{
    set_int(file, "fold", (int64_t)1 << 40);
}
static void no_length(hid_t file)
{
    set_int(file, "max_length", 0);
}
static void step_is_text(hid_t file)
{
    set_text(file, "step", "3");
}
static void epoch_is_integer(hid_t file)
{
    set_int(file, "epoch", 3);
}
static void config_is_integer(hid_t file)
{
    set_int(file, "config", 3);
}

static void long_hash(hid_t file)
{
    char text[FB3_SHA256_HEX + 1];
    memset(text, 'a', sizeof text);
    text[FB3_SHA256_HEX] = 0;
    set_text(file, "data_sha256", text);
}

static void long_config(hid_t file)
{
    enum { BYTES = (1 << 20) + 1 };
    char *text = malloc(BYTES + 1);
    assert_non_null(text);
    memset(text, 'a', BYTES);
    text[BYTES] = 0;
    set_text(file, "config", text);
    free(text);
}

static void no_state(hid_t file)
{
    drop(file, "train");
}
static void no_model(hid_t file)
{
    drop(file, "model");
}
static void no_tokenizer(hid_t file)
{
    drop(file, "tokenizer");
}
static void no_model_config(hid_t file)
{
    drop(file, "model_config");
}
static void no_bias(hid_t file)
{
    drop(file, "model/fc.bias");
}
static void no_moment(hid_t file)
{
    drop(file, "optim/v/fc.bias");
}
static void no_moments(hid_t file)
{
    drop(file, "optim/m");
}
static void no_active_rows(hid_t file)
{
    drop(file, "optim/active_rows");
}

static void one_more(hid_t file)
{
    put(file, "model/evil.weight", H5T_NATIVE_FLOAT, 1, two, zeros);
}

static void other_shape(hid_t file)
{
    drop(file, "model/fc.bias");
    put(file, "model/fc.bias", H5T_NATIVE_FLOAT, 1, three, zeros);
}

static void other_rank(hid_t file)
{
    drop(file, "model/fc.weight");
    put(file, "model/fc.weight", H5T_NATIVE_FLOAT, 1, two, zeros);
}

static void integers(hid_t file)
{
    drop(file, "model/fc.bias");
    put(file, "model/fc.bias", H5T_NATIVE_INT32, 1, two, zeros);
}

static void other_moment(hid_t file)
{
    drop(file, "optim/m/fc.bias");
    put(file, "optim/m/fc.bias", H5T_NATIVE_FLOAT, 1, three, zeros);
}

/* A shape without any bytes behind it. */
static void claim(hid_t file, const char *name, hid_t type, int rank, const hsize_t *dims)
{
    hid_t space = H5Screate_simple(rank, dims, NULL), properties = H5Pcreate(H5P_DATASET_CREATE);
    drop(file, name);
    assert_true(H5Pset_chunk(properties, rank, rank == 1 ? two : one_one) >= 0);
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    assert_true(dataset >= 0);
    H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(space);
}

static void vast_head(hid_t file)
{
    claim(file, "model/fc.weight", H5T_NATIVE_FLOAT, 2, vast);
}
static void vast_words(hid_t file)
{
    claim(file, "model/embeddings.word_embeddings.weight", H5T_NATIVE_FLOAT, 2, vast);
}
static void vast_tokenizer(hid_t file)
{
    claim(file, "tokenizer", H5T_NATIVE_UINT8, 1, vast);
}
static void vast_config(hid_t file)
{
    claim(file, "model_config", H5T_NATIVE_UINT8, 1, vast);
}
static void vast_rows(hid_t file)
{
    claim(file, "optim/active_rows", H5T_NATIVE_UINT32, 1, vast);
}

static void config_of_a_larger_model(hid_t file)
{
    replace_config(file, "\"vocab_size\": 40", "\"vocab_size\": 8388608");
}
static void config_with_more_layers(hid_t file)
{
    replace_config(file, "layers\": 1", "layers\": 1000");
}
static void config_is_no_json(hid_t file)
{
    replace_config(file, NULL, "os.system('true')");
}
static void config_of_bert(hid_t file)
{
    replace_config(file, "deberta-v2", "bert");
}

static void link_outside(hid_t file)
{
    drop(file, "model/fc.bias");
    assert_true(H5Lcreate_external("/etc/passwd", "/x", file, "model/fc.bias", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void group_outside(hid_t file)
{
    drop(file, "model");
    assert_true(H5Lcreate_external("other.h5", "/model", file, "model", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void soft_link_to_itself(hid_t file)
{
    drop(file, "train");
    assert_true(H5Lcreate_soft("/train", file, "train", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void group_in_a_circle(hid_t file)
{
    drop(file, "model");
    assert_true(H5Lcreate_hard(file, "/", file, "model", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void group_for_an_array(hid_t file)
{
    drop(file, "model/fc.bias");
    hid_t group = H5Gcreate2(file, "model/fc.bias", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(group >= 0);
    H5Gclose(group);
}

static void array_for_a_group(hid_t file)
{
    drop(file, "train");
    put(file, "train", H5T_NATIVE_FLOAT, 1, two, zeros);
}

static void tokenizer_of_two_dimensions(hid_t file)
{
    drop(file, "tokenizer");
    put(file, "tokenizer", H5T_NATIVE_UINT8, 2, one_one, zeros);
}

typedef struct change_case {
    void (*change)(hid_t file);
    const char *refusal;
} change_case;

static const change_case changes[] = {
    {not_marked_complete, "is not complete: its writing was interrupted"},
    {marked_incomplete, "is not complete"},
    {complete_is_text, "attribute complete"},
    {newer_format, "has format version 2"},
    {no_step, "no attribute step"},
    {negative_step, "impossible state: step -1"},
    {wide_fold, "attribute fold is 1099511627776"},
    {no_length, "impossible state"},
    {step_is_text, "attribute step"},
    {epoch_is_integer, "attribute epoch"},
    {config_is_integer, "attribute config"},
    {long_hash, "longer than 64 bytes"},
    {long_config, "longer than 1048576 bytes"},
    {no_state, "has no train; it is not a checkpoint"},
    {no_model, "has no model; it is not a checkpoint"},
    {no_tokenizer, "has no tokenizer"},
    {no_model_config, "has no model_config"},
    {no_bias, "has no fc.bias"},
    {no_moment, "has no fc.bias"},
    {no_moments, "has no m"},
    {no_active_rows, "has no active_rows"},
    {one_more, "has 25 parameters, its configuration says 24"},
    {other_shape, "fc.bias in"},
    {other_rank, "not the weight of a head"},
    {integers, "elements of the wrong type"},
    {other_moment, "has the shape [3], but [2] is needed"},
    {vast_head, "claims more elements than the file holds"},
    {vast_words, "claims more elements than the file holds"},
    {vast_tokenizer, "claims more elements than the file holds"},
    {vast_config, "claims more elements than the file holds"},
    {vast_rows, "claims more elements than the file holds"},
    {config_of_a_larger_model, "does not have the shape that its configuration says"},
    {config_with_more_layers, "has no encoder.layer.999"},
    {config_is_no_json, "not JSON"},
    {config_of_bert, "model_type"},
    {link_outside, "is a link to somewhere else"},
    {group_outside, "is a link to somewhere else"},
    {soft_link_to_itself, "is a link to somewhere else"},
    {group_in_a_circle, "has no fc.weight"},
    {group_for_an_array, "fc.bias"},
    {array_for_a_group, "train in"},
    {tokenizer_of_two_dimensions, "has 2 dimensions"},
};

static void changed_checkpoints(void **state)
{
    (void)state;
    size_t bytes;
    assert_ok(write_step(&model, scratch_path("good.h5"), NULL, 3, true));
    unsigned char *good = read_whole(scratch_path("good.h5"), &bytes);
    const char *path = scratch_path("changed.h5");
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        write_file(path, good, bytes);
        assert_ok(read_all(path));
        hid_t access = H5Pcreate(H5P_FILE_ACCESS);
        assert_true(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0);
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, access);
        assert_true(file >= 0);
        changes[i].change(file);
        assert_true(H5Fclose(file) >= 0);
        H5Pclose(access);
        assert_refused(read_all(path), changes[i].refusal);
    }
    free(good);
}

static void files_of_another_kind(void **state)
{
    (void)state;
    assert_refused(read_all(scratch_path("absent.h5")), "there is no file");
    assert_refused(read_all(scratch_path(".")), "there is no file");
    write_file(scratch_path("empty.h5"), "", 0);
    assert_refused(read_all(scratch_path("empty.h5")), "cannot open");
    write_file(scratch_path("text.h5"), "step: 3\n", 8);
    assert_refused(read_all(scratch_path("text.h5")), "another kind of file");
    write_file(scratch_path("head.h5"), "\x89HDF\r\n\x1a\n\3\x08\x08", 11);
    assert_refused(read_all(scratch_path("head.h5")), "cannot open");
    hid_t file;
    assert_ok(fb3_h5_create(&file, scratch_path("other.h5")));
    assert_ok(fb3_h5_close(file, scratch_path("other.h5")));
    assert_refused(read_all(scratch_path("other.h5")), "has no train; it is not a checkpoint");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changed_checkpoints),
        cmocka_unit_test(files_of_another_kind),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
