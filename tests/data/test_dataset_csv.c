/* Bad CSVs and options: one line that names file, row and column, FB3_INPUT, and no file touched. */
#include "data_fixture.h"

#include "fb3/h5.h"

enum { VOCABULARY = 1000 };

static fb3_status prepare(const char *csv, const char *h5, const fb3_dataset_options *options)
{
    fb3_dataset_report report;
    return prepare_file(scratch_path(csv), scratch_path(h5), stand_in_tokenizer(VOCABULARY, 'A'), options, &report);
}

#define HEAD "text_id,full_text,a,b\n"

static void test_bad_csv(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "bad.csv"},
        {HEAD, "no rows below its header"},
        {"text_id,full_text,a\n1,x,1\n", "b"},
        {"text_id,a,b\n1,1,1\n", "full_text"},
        {"full_text,a,b\nx,1,1\n", "text_id"},
        {"text_id,full_text,a,b,a\n1,x,1,1,1\n", "a"},
        {HEAD "1,x,1\n", "bad.csv"},
        {HEAD "1,x,1,2,3\n", "bad.csv"},
        {HEAD "1,\"x,1,2\n", "bad.csv"},
        {HEAD "1,\"x\"y,1,2\n", "bad.csv"},
        {HEAD "1,\xff\xfe,1,2\n", "bad.csv"},
        {HEAD "1,x,1,2\n2,y,,2\n", "row 2 (line 3), column a: \"\" is no score"},
        {HEAD "1,x,1,2\n2,\"y\nz\",1,two\n", "row 2 (line 3), column b: \"two\" is not a finite number"},
        {HEAD "1,x,nan,2\n", "column a: \"nan\" is not a finite number"},
        {HEAD "1,x,inf,2\n", "column a: \"inf\" is not a finite number"},
        {HEAD "1,x,1e999,2\n", "column a: \"1e999\" is not a finite number"},
        {HEAD "1,x,1e39,2\n", "column a: \"1e39\" is not a finite number"},
        {HEAD "1,x,0x10,2\n", "column a: \"0x10\" is not a finite number"},
        {HEAD "1,x,1.5.5,2\n", "column a: \"1.5.5\" is not a finite number"},
        {HEAD "1,x,\"3,5\",2\n", "column a: \"3,5\" is not a finite number"},
        {HEAD "1,x, ,2\n", "column a: \" \" is not a finite number"},
        {HEAD "1,x,\"1\n2\",2\n", "column a: \"1?2\" is not a finite number"},
        {HEAD ",x,1,2\n", "row 1 (line 2), column text_id: \"\" is an empty id"},
        {HEAD "1,x,1,2\n2,y,1,2\n1,z,1,2\n", "rows 1 and 3 (line 4) have the same id 1 in column text_id"},
        {HEAD "1,x,1,2\n2," UNTOKENISABLE ",1,2\n", "row 2: no token for this"},
    };
    fb3_strings columns;
    fb3_dataset_options options = make_options(&columns, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text("bad.csv", cases[i].text);
        assert_fails(prepare("bad.csv", "bad.h5", &options), FB3_INPUT, cases[i].message);
        assert_false(fb3_file_exists(scratch_path("bad.h5")));
        assert_false(fb3_file_exists(scratch_path("bad.h5.tmp")));
    }
    assert_fails(prepare("nowhere.csv", "bad.h5", &options), FB3_INPUT, "nowhere.csv");
    fb3_strings_free(&columns);
}

static void test_bad_options(void **state)
{
    (void)state;
    fb3_strings columns, many = {0}, twice = {0};
    fb3_dataset_options options = make_options(&columns, 1), changed;
    write_text("good.csv", "text_id,full_text,a,fold\n1,x,1,0\n2,y,2,1.0\n3,z,3,-1\n");
    changed = options, changed.max_length = 2;
    assert_fails(prepare("good.csv", "bad.h5", &changed), FB3_INPUT, "max_length is 2");
    changed = options, changed.max_length = INT32_MAX;
    assert_fails(prepare("good.csv", "bad.h5", &changed), FB3_INPUT, "max_length is 2147483647");
    changed = options, changed.fold_column = "kfold";
    assert_fails(prepare("good.csv", "bad.h5", &changed), FB3_INPUT, "kfold");
    changed = options, changed.fold_column = "fold";
    assert_fails(prepare("good.csv", "bad.h5", &changed), FB3_INPUT,
                 "row 3 (line 4), column fold: \"-1\" is not a fold");
    for (int i = 0; i <= FB3_MAX_TARGETS; i++) assert_ok(fb3_strings_add(&many, "a"));
    changed = options, changed.label_columns = &many;
    assert_fails(prepare("good.csv", "bad.h5", &changed), FB3_INPUT, "65 columns");
    assert_ok(fb3_strings_add(&twice, "a"));
    assert_ok(fb3_strings_add(&twice, "a"));
    changed = options, changed.label_columns = &twice;
    assert_fails(prepare("good.csv", "bad.h5", &changed), FB3_INPUT, "names a twice");
    assert_fails(prepare("good.csv", "no/such/folder.h5", &options), FB3_FAILED, "no/such/folder.h5");
    fb3_strings_free(&columns);
    fb3_strings_free(&many);
    fb3_strings_free(&twice);
}

static void test_long_ids(void **state)
{
    (void)state;
    static char text[4096], id[1100];
    fb3_strings columns, ids;
    fb3_dataset_options options = make_options(&columns, 0);
    memset(id, 'x', 1024);
    snprintf(text, sizeof text, "text_id,full_text\n%s,x\nshort,y\n", id);
    make_dataset("long.h5", text, 0, VOCABULARY);
    fb3_node_memory memory;
    fb3_dataset *dataset;
    assert_ok(fb3_node_memory_private(&memory));
    assert_ok(fb3_dataset_open(&dataset, scratch_path("long.h5"), &memory));
    assert_ok(fb3_dataset_id_range(dataset, 0, 2, &ids));
    assert_string_equal(ids.item[0], id);
    assert_string_equal(ids.item[1], "short");
    fb3_strings_free(&ids);
    fb3_dataset_close(dataset);
    fb3_node_memory_private_free(&memory);
    id[1024] = 'x';
    snprintf(text, sizeof text, "text_id,full_text\n%s,x\n", id);
    write_text("bad.csv", text);
    assert_fails(prepare("bad.csv", "bad.h5", &options), FB3_INPUT, "more than 1,024 bytes");
    fb3_strings_free(&columns);
}

/* A failure leaves the data set that was there; files of another kind are never replaced. */
static void test_what_is_there_stays(void **state)
{
    (void)state;
    fb3_strings columns;
    fb3_dataset_options options = make_options(&columns, 2);
    size_t before_bytes, after_bytes;
    write_text("good.csv", HEAD "1,x,1,2\n");
    assert_ok(prepare("good.csv", "there.h5", &options));
    char *before = read_bytes("there.h5", &before_bytes);
    write_text("bad.csv", HEAD "1,x,1,2\n2,y,1,\n");
    assert_fails(prepare("bad.csv", "there.h5", &options), FB3_INPUT, "row 2");
    char *after = read_bytes("there.h5", &after_bytes);
    assert_int_equal(before_bytes, after_bytes);
    assert_memory_equal(before, after, before_bytes);
    free(before);
    free(after);

    write_text("precious.txt", "not to be lost");
    assert_fails(prepare("good.csv", "precious.txt", &options), FB3_INPUT,
                 "precious.txt is there and is not a data set");
    assert_fails(prepare("good.csv", "good.csv", &options), FB3_INPUT, "good.csv is there and is not a data set");
    hid_t file;
    assert_ok(fb3_h5_create(&file, scratch_path("checkpoint.h5")));
    assert_ok(fb3_h5_set_text(file, "format", "something else"));
    assert_ok(fb3_h5_close(file, "checkpoint.h5"));
    assert_fails(prepare("good.csv", "checkpoint.h5", &options), FB3_INPUT, "another kind of HDF5 file");
    char *text = read_text("precious.txt");
    assert_string_equal(text, "not to be lost");
    free(text);
    fb3_strings_free(&columns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_csv),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_long_ids),
        cmocka_unit_test(test_what_is_there_stays),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
