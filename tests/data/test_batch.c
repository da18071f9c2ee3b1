/* Ragged batches: every field against what the data set's rows say, empty batches, batches that do not fit. */
#include "data_fixture.h"

#include "fb3/batch.h"

enum { ROWS = 40, VOCABULARY = 300, TARGETS = 2, ROOM_TOKENS = 4000, ROOM_SEQUENCES = 64 };

typedef struct fixture {
    fb3_dataset *dataset;
    fb3_node_memory memory;
    int32_t row_of_token[VOCABULARY];
} fixture;

/* Row i has i * 7 % 41 words. */
static fixture open_fixture(int targets)
{
    static char text[1 << 16];
    size_t used = (size_t)snprintf(text, sizeof text, "text_id,full_text%s\n", targets ? ",a,b" : "");
    for (int i = 0; i < ROWS; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "id%d,", i);
        for (int w = 0; w < i * 7 % 41; w++)
            used += (size_t)snprintf(text + used, sizeof text - used, "w%d ", (i * 31 + w * w) % 97);
        used += (size_t)snprintf(text + used, sizeof text - used, targets ? ",%d,%d.5\n" : "\n", i, i % 5);
    }
    make_dataset("batch.h5", text, targets, VOCABULARY);
    fixture f;
    assert_ok(fb3_node_memory_private(&f.memory));
    assert_ok(fb3_dataset_open(&f.dataset, scratch_path("batch.h5"), &f.memory));
    memset(f.row_of_token, -1, sizeof f.row_of_token);
    for (int i = 0; i < f.dataset->active; i++) f.row_of_token[f.dataset->vocabulary[i]] = i;
    return f;
}

static void close_fixture(fixture *f)
{
    fb3_dataset_close(f->dataset);
    fb3_node_memory_private_free(&f->memory);
}

static void check_sequences(const fixture *f, const fb3_batch *b, const int64_t *rows, int count)
{
    int at = 0, longest = 0;
    uint32_t tokens[512];
    float labels[TARGETS];
    assert_int_equal(b->B, count);
    for (int s = 0; s < count; s++) {
        int length = fb3_dataset_length(f->dataset, rows[s]);
        assert_int_equal(b->seq_start[s], at);
        assert_int_equal(b->sample[s], rows[s]);
        assert_ok(fb3_dataset_read_tokens(f->dataset, &rows[s], 1, tokens));
        assert_ok(fb3_dataset_read_labels(f->dataset, &rows[s], 1, labels));
        if (b->Y > 0) assert_memory_equal(b->targets + s * b->Y, labels, sizeof labels);
        for (int t = 0; t < length; t++) {
            assert_int_equal(b->token_seq[at + t], s);
            assert_int_equal(b->ids[at + t], f->row_of_token[tokens[t]]);
        }
        at += length;
        if (length > longest) longest = length;
    }
    assert_int_equal(b->seq_start[count], at);
    assert_int_equal(b->T, at);
    assert_int_equal(b->max_len, longest);
}

/* Segments: ids ascend, positions ascend inside, every position occurs once. */
static void check_groups(const fb3_batch *b)
{
    static bool seen[ROOM_TOKENS];
    memset(seen, 0, sizeof seen);
    assert_int_equal(b->id_start[0], 0);
    assert_int_equal(b->id_start[b->U], b->T);
    for (int u = 0; u < b->U; u++) {
        assert_true(b->id_start[u] < b->id_start[u + 1]);
        assert_true(u == 0 || b->id_value[u - 1] < b->id_value[u]);
        for (int i = b->id_start[u]; i < b->id_start[u + 1]; i++) {
            int position = b->by_id[i];
            assert_true(position >= 0 && position < b->T && !seen[position]);
            assert_int_equal(b->ids[position], b->id_value[u]);
            assert_true(i == b->id_start[u] || b->by_id[i - 1] < position);
            seen[position] = true;
        }
    }
}

static void build_and_check(const fixture *f, fb3_batch *b, const int64_t *rows, int count)
{
    assert_ok(fb3_batch_build(b, f->dataset, f->row_of_token, VOCABULARY, rows, count));
    check_sequences(f, b, rows, count);
    check_groups(b);
}

static void test_fields(void **state)
{
    (void)state;
    fixture f = open_fixture(TARGETS);
    fb3_batch *b;
    int64_t all[ROWS];
    const int64_t some[] = {17, 3, 4, 5, 39, 0, 12}, twice[] = {8, 8};
    for (int i = 0; i < ROWS; i++) all[i] = i;
    assert_ok(fb3_batch_create(&b, ROOM_TOKENS, ROOM_SEQUENCES, TARGETS));
    build_and_check(&f, b, all, ROWS);
    build_and_check(&f, b, some, 7);
    build_and_check(&f, b, twice, 2);
    build_and_check(&f, b, some + 5, 1); /* an empty essay: [CLS] [SEP] */
    assert_int_equal(b->T, 2);
    fb3_batch_free(b);
    close_fixture(&f);
}

static void test_empty_batch(void **state)
{
    (void)state;
    fixture f = open_fixture(TARGETS);
    fb3_batch *b;
    assert_ok(fb3_batch_create(&b, 0, 0, TARGETS));
    assert_ok(fb3_batch_build(b, f.dataset, f.row_of_token, VOCABULARY, NULL, 0));
    assert_int_equal(b->T, 0);
    assert_int_equal(b->B, 0);
    assert_int_equal(b->U, 0);
    assert_int_equal(b->max_len, 0);
    assert_int_equal(b->seq_start[0], 0);
    assert_int_equal(b->id_start[0], 0);
    fb3_batch_free(b);
    close_fixture(&f);
}

static void test_no_targets(void **state)
{
    (void)state;
    fixture f = open_fixture(0);
    fb3_batch *b;
    const int64_t rows[] = {9, 2};
    assert_ok(fb3_batch_create(&b, ROOM_TOKENS, ROOM_SEQUENCES, 0));
    assert_null(b->targets);
    build_and_check(&f, b, rows, 2);
    fb3_batch_free(b);
    close_fixture(&f);
}

static void test_exact_room_and_overflow(void **state)
{
    (void)state;
    fixture f = open_fixture(TARGETS);
    const int64_t rows[] = {5, 6, 7};
    int tokens = 0;
    fb3_batch *b;
    for (int i = 0; i < 3; i++) tokens += fb3_dataset_length(f.dataset, rows[i]);
    assert_ok(fb3_batch_create(&b, tokens, 3, TARGETS));
    build_and_check(&f, b, rows, 3);
    fb3_batch_free(b);

    assert_ok(fb3_batch_create(&b, tokens - 1, 3, TARGETS));
    assert_fails(fb3_batch_build(b, f.dataset, f.row_of_token, VOCABULARY, rows, 3), FB3_FAILED, "more than the");
    assert_int_equal(b->T, 0);
    assert_int_equal(b->B, 0);
    fb3_batch_free(b);

    assert_ok(fb3_batch_create(&b, tokens, 2, TARGETS));
    assert_fails(fb3_batch_build(b, f.dataset, f.row_of_token, VOCABULARY, rows, 3), FB3_FAILED, "a batch of 2");
    fb3_batch_free(b);

    assert_ok(fb3_batch_create(&b, tokens, 3, TARGETS + 1));
    assert_fails(fb3_batch_build(b, f.dataset, f.row_of_token, VOCABULARY, rows, 3), FB3_FAILED, "3 targets");
    fb3_batch_free(b);
    close_fixture(&f);
}

static void test_tokens_outside_the_vocabulary(void **state)
{
    (void)state;
    fixture f = open_fixture(TARGETS);
    const int64_t rows[] = {5};
    fb3_batch *b;
    assert_ok(fb3_batch_create(&b, ROOM_TOKENS, ROOM_SEQUENCES, TARGETS));
    assert_fails(fb3_batch_build(b, f.dataset, f.row_of_token, WORD_SEP, rows, 1), FB3_FAILED, "token id");
    f.row_of_token[WORD_SEP] = -1;
    assert_fails(fb3_batch_build(b, f.dataset, f.row_of_token, VOCABULARY, rows, 1), FB3_FAILED, "token id 2");
    assert_int_equal(b->T, 0);
    fb3_batch_free(b);
    close_fixture(&f);
}

/* Rows of the word table that need more than one digit of the sort. */
static void test_large_ids(void **state)
{
    (void)state;
    static const int factors[] = {1, 7, 2048, 65536 * 64};
    fixture f = open_fixture(TARGETS);
    int64_t all[ROWS];
    fb3_batch *b;
    for (int i = 0; i < ROWS; i++) all[i] = ROWS - 1 - i;
    assert_ok(fb3_batch_create(&b, ROOM_TOKENS, ROOM_SEQUENCES, TARGETS));
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        for (int row = 0; row < f.dataset->active; row++)
            f.row_of_token[f.dataset->vocabulary[row]] = (f.dataset->active - row) * factors[i];
        build_and_check(&f, b, all, ROWS);
    }
    fb3_batch_free(b);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_empty_batch),
        cmocka_unit_test(test_no_targets),
        cmocka_unit_test(test_exact_room_and_overflow),
        cmocka_unit_test(test_tokens_outside_the_vocabulary),
        cmocka_unit_test(test_large_ids),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
