/* A data set of several files: CSV files made into one, and prepared files read as one, are what a single file with all
 * the rows gives; what does not fit together is refused by name. */
#include "data_fixture.h"

enum { VOCABULARY = 70000, PART_ROWS = 3, ROWS = 3 * PART_ROWS };
#define HEAD "text_id,full_text,a,b\n"
static const char *const PARTS[] = {HEAD "x1,u v w,1,2\nx2,u,3,4\nx3,new words here,5,1\n",
                                    HEAD "y1,more,2,2\ny2-with-a-long-id,u u u u,3,3\ny3,other things,4,4\n",
                                    "b,a,full_text,text_id\n1,5,last file,z1\n2,4,w v u,z2\n3,3,u,z3\n"};
static const char WHOLE[] = HEAD "x1,u v w,1,2\nx2,u,3,4\nx3,new words here,5,1\n"
                                 "y1,more,2,2\ny2-with-a-long-id,u u u u,3,3\ny3,other things,4,4\n"
                                 "z1,last file,5,1\nz2,w v u,4,2\nz3,u,3,3\n";

/* Lists of scratch paths; the paths themselves live as long as scratch_path() says. */
typedef struct path_list {
    char *item[4];
    fb3_strings strings;
} path_list;

static const fb3_strings *list_of(path_list *list, const char *a, const char *b, const char *c)
{
    const char *names[] = {a, b, c};
    list->strings = (fb3_strings){.item = list->item};
    for (int i = 0; i < 3 && names[i]; i++) list->item[list->strings.count++] = (char *)scratch_path(names[i]);
    return &list->strings;
}

typedef struct content {
    int64_t offsets[ROWS + 1];
    uint32_t tokens[200], vocabulary[100];
    int active;
    float labels[ROWS * 2];
    fb3_strings ids;
} content;

static content read_content(const fb3_strings *paths)
{
    content c = {0};
    fb3_dataset *d;
    fb3_node_memory memory;
    int64_t rows[ROWS];
    for (int i = 0; i < ROWS; i++) rows[i] = i;
    assert_ok(fb3_node_memory_private(&memory));
    assert_ok(fb3_dataset_open_files(&d, paths, &memory));
    assert_int_equal(d->n, ROWS);
    memcpy(c.offsets, d->offsets, sizeof c.offsets);
    c.active = d->active;
    memcpy(c.vocabulary, d->vocabulary, (size_t)d->active * sizeof *c.vocabulary);
    assert_ok(fb3_dataset_verify(d));
    assert_ok(fb3_dataset_read_tokens(d, rows, ROWS, c.tokens));
    assert_ok(fb3_dataset_read_labels(d, rows, ROWS, c.labels));
    assert_ok(fb3_dataset_id_range(d, 0, ROWS, &c.ids));
    fb3_dataset_close(d);
    fb3_node_memory_private_free(&memory);
    return c;
}

static void assert_same_content(content *a, content *b)
{
    fb3_strings ours = a->ids, theirs = b->ids;
    assert_int_equal(ours.count, theirs.count);
    for (int i = 0; i < ours.count; i++) assert_string_equal(ours.item[i], theirs.item[i]);
    fb3_strings_free(&b->ids);
    b->ids = a->ids;
    assert_memory_equal(a, b, sizeof *a);
    b->ids = (fb3_strings){0};
}

static void make_parts(const fb3_dataset_options *options)
{
    fb3_dataset_report report;
    for (int i = 0; i < 3; i++) {
        char csv[16], h5[16];
        snprintf(csv, sizeof csv, "part-%d.csv", i);
        snprintf(h5, sizeof h5, "part-%d.h5", i);
        write_text(csv, PARTS[i]);
        assert_ok(
            prepare_file(scratch_path(csv), scratch_path(h5), stand_in_tokenizer(VOCABULARY, 'A'), options, &report));
    }
}

static void test_parts_are_the_whole(void **state)
{
    (void)state;
    path_list list;
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    const fb3_tokenizer *tokenizer = stand_in_tokenizer(VOCABULARY, 'A');
    make_parts(&options);
    write_text("whole.csv", WHOLE);
    assert_ok(prepare_file(scratch_path("whole.csv"), scratch_path("whole.h5"), tokenizer, &options, &report));
    assert_ok(fb3_dataset_prepare(list_of(&list, "part-0.csv", "part-1.csv", "part-2.csv"), scratch_path("csv.h5"),
                                  tokenizer, &options, &report));
    assert_int_equal(report.samples, ROWS);
    assert_int_equal(report.duplicate_texts, 1);
    content whole = read_content(list_of(&list, "whole.h5", NULL, NULL));
    content csv = read_content(list_of(&list, "csv.h5", NULL, NULL));
    content h5 = read_content(list_of(&list, "part-0.h5", "part-1.h5", "part-2.h5"));
    assert_same_content(&whole, &csv);
    assert_same_content(&whole, &h5);
    fb3_strings_free(&whole.ids);
    fb3_strings_free(&columns);
}

/* Rows on both sides of the borders, in any order, in one read and in ranges. */
static void test_reads_cross_the_borders(void **state)
{
    (void)state;
    path_list list;
    fb3_strings columns, ids;
    fb3_dataset_options options = make_options(&columns, 2);
    fb3_node_memory memory;
    fb3_dataset *d;
    make_parts(&options);
    assert_ok(fb3_node_memory_private(&memory));
    assert_ok(fb3_dataset_open_files(&d, list_of(&list, "part-0.h5", "part-1.h5", "part-2.h5"), &memory));
    const int64_t rows[] = {8, 2, 3, 4, 5, 6, 0};
    const float expected[] = {3, 3, 5, 1, 2, 2, 3, 3, 4, 4, 5, 1, 1, 2};
    float labels[14];
    assert_ok(fb3_dataset_read_labels(d, rows, 7, labels));
    assert_memory_equal(labels, expected, sizeof expected);
    assert_ok(fb3_dataset_read_ids(d, rows, 7, &ids));
    assert_string_equal(ids.item[0], "z3");
    assert_string_equal(ids.item[3], "y2-with-a-long-id");
    assert_string_equal(ids.item[6], "x1");
    fb3_strings_free(&ids);
    assert_ok(fb3_dataset_label_range(d, 2, 5, labels));
    assert_memory_equal(labels, expected + 2, 10 * sizeof *labels);
    uint32_t some[64];
    assert_ok(fb3_dataset_read_tokens(d, rows, 7, some));
    assert_int_equal(some[0], WORD_CLS);
    assert_int_equal(some[1], stand_in_id("u", 1, VOCABULARY));
    assert_int_equal(some[2], WORD_SEP);
    fb3_dataset_close(d);
    fb3_node_memory_private_free(&memory);
    fb3_strings_free(&columns);
}

static void test_reuse_depends_on_all_sources(void **state)
{
    (void)state;
    path_list list;
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    const fb3_tokenizer *tokenizer = stand_in_tokenizer(VOCABULARY, 'A');
    make_parts(&options);
    for (int round = 0; round < 4; round++) {
        const bool swapped = round == 2, changed = round == 3;
        if (changed) write_text("part-2.csv", HEAD "z1,changed,1,1\n");
        const fb3_strings *paths = swapped ? list_of(&list, "part-2.csv", "part-0.csv", "part-1.csv")
                                           : list_of(&list, "part-0.csv", "part-1.csv", "part-2.csv");
        assert_ok(fb3_dataset_prepare(paths, scratch_path("reused.h5"), tokenizer, &options, &report));
        assert_int_equal(report.reused, round == 1);
    }
    fb3_strings_free(&columns);
}

static void test_bad_sources(void **state)
{
    (void)state;
    static const struct {
        const char *second, *message;
    } CASES[] = {
        {HEAD "y1,u,1,2\nx2,u,1,2\n", "b.csv: row 2 (line 3) has the id x2, and so has row 2 of"},
        {HEAD "y1,u,1,2\ny2,u,1,\n", "b.csv, row 2 (line 3), column b"},
        {"text_id,full_text,a\ny1,u,1\n", "has no column 'b'"},
        {HEAD "y1," UNTOKENISABLE ",1,2\n", "b.csv, row 1: "},
        {"", "b.csv"},
    };
    path_list list;
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    write_text("a.csv", PARTS[0]);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        write_text("b.csv", CASES[i].second);
        assert_fails(fb3_dataset_prepare(list_of(&list, "a.csv", "b.csv", NULL), scratch_path("bad.h5"),
                                         stand_in_tokenizer(VOCABULARY, 'A'), &options, &report),
                     FB3_INPUT, CASES[i].message);
        assert_false(fb3_file_exists(scratch_path("bad.h5")));
    }
    /* a file of a header only is no mistake beside others */
    write_text("b.csv", HEAD);
    assert_ok(fb3_dataset_prepare(list_of(&list, "b.csv", "a.csv", "b.csv"), scratch_path("bad.h5"),
                                  stand_in_tokenizer(VOCABULARY, 'A'), &options, &report));
    assert_int_equal(report.samples, PART_ROWS);
    fb3_strings_free(&columns);
}

static void test_files_that_do_not_fit(void **state)
{
    (void)state;
    path_list list;
    fb3_strings columns, one_column;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2), other = options;
    fb3_node_memory memory;
    fb3_dataset *d;
    make_parts(&options);
    assert_ok(fb3_node_memory_private(&memory));
    write_text("o.csv", "text_id,full_text,a,b,fold\no1,u,1,2,0\no2,u v,1,2,1\n");
    assert_ok(prepare_file(scratch_path("o.csv"), scratch_path("o.h5"), stand_in_tokenizer(VOCABULARY, 'B'), &options,
                           &report));
    assert_fails(fb3_dataset_open_files(&d, list_of(&list, "part-0.h5", "o.h5", NULL), &memory), FB3_INPUT,
                 "o.h5 was made with another tokenizer");
    (void)make_options(&one_column, 1);
    other.label_columns = &one_column;
    assert_ok(prepare_file(scratch_path("o.csv"), scratch_path("o.h5"), stand_in_tokenizer(VOCABULARY, 'A'), &other,
                           &report));
    assert_fails(fb3_dataset_open_files(&d, list_of(&list, "part-0.h5", "o.h5", NULL), &memory), FB3_INPUT,
                 "o.h5 has other label columns");
    other = options, other.fold_column = "fold";
    assert_ok(prepare_file(scratch_path("o.csv"), scratch_path("o.h5"), stand_in_tokenizer(VOCABULARY, 'A'), &other,
                           &report));
    assert_fails(fb3_dataset_open_files(&d, list_of(&list, "part-0.h5", "o.h5", NULL), &memory), FB3_INPUT,
                 "only one has a fold column");
    assert_fails(fb3_dataset_open_files(&d, list_of(&list, "part-0.h5", "nowhere.h5", NULL), &memory), FB3_INPUT,
                 "nowhere.h5");
    /* one file twice: its ids repeat */
    assert_ok(fb3_dataset_open_files(&d, list_of(&list, "part-0.h5", "part-1.h5", "part-0.h5"), &memory));
    assert_fails(fb3_dataset_verify(d), FB3_INPUT, "the samples 0 and 6 of ");
    fb3_dataset_close(d);
    fb3_node_memory_private_free(&memory);
    fb3_strings_free(&columns);
    fb3_strings_free(&one_column);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_are_the_whole),          cmocka_unit_test(test_reads_cross_the_borders),
        cmocka_unit_test(test_reuse_depends_on_all_sources), cmocka_unit_test(test_bad_sources),
        cmocka_unit_test(test_files_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
