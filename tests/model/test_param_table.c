/* The parameter table: names and shapes are those of transformers (golden/state_dict.txt), every number of an arena
 * belongs to one parameter or to padding, every parameter to one range, and what the model
 * uses as one matrix lies together. */
#include "fb3/params.h"
#include "model/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ACTIVE = 1000, TARGETS = 6 };

typedef struct size_line {
    const char *name, *preset;
    int64_t parameters; /* without the head: DESIGN 4; 0: not listed there */
} size_line;

static const size_line sizes[] = {
    {"xsmall", "deberta-v3-xsmall", 70682112},
    {"small", "deberta-v3-small", 141304320},
    {"base", "deberta-v3-base", 183831552},
    {"large", "deberta-v3-large", 434012160},
    {"tiny", "tiny", 0},
};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static fb3_param_table *table_of(const char *preset)
{
    fb3_model_config model;
    fb3_param_table *table;
    must(fb3_model_config_preset(&model, preset, 128100));
    must(fb3_param_table_create(&table, &model, ACTIVE, TARGETS));
    return table;
}

static FILE *open_names(void)
{
    char path[4096];
    const char *source = getenv("FB3_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/tests/model/golden/state_dict.txt", source ? source : ".");
    FILE *file = fopen(path, "r");
    if (!file) fail_msg("%s is missing", path);
    return file;
}

/* Compares the lines after "# <size>" with the table; returns how many there were. */
static int compare_names(const char *size, const fb3_param_table *table)
{
    FILE *file = open_names();
    char line[256], name[128], wanted[32];
    bool inside = false;
    int found = 0;
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#') {
            assert_int_equal(sscanf(line, "# %31s", wanted), 1);
            inside = strcmp(wanted, size) == 0;
            continue;
        }
        if (!inside) continue;
        int rows = 0, cols = 0;
        assert_true(sscanf(line, "%127s %d %d", name, &rows, &cols) >= 2);
        const fb3_param *param = fb3_param_by_name(table, name);
        if (!param) {
            fail_msg("%s: no parameter '%s'", size, name);
            break;
        }
        assert_int_equal(param->full_rows, rows);
        assert_int_equal(param->cols, cols);
        found++;
    }
    fclose(file);
    return found;
}

static void test_names_and_shapes_of_transformers(void **state)
{
    (void)state;
    enum { HEAD = 2 }; // fc.weight and fc.bias are not transformers'
    for (int i = 0; i < SIZES; i++) {
        fb3_param_table *table = table_of(sizes[i].preset);
        assert_int_equal(compare_names(sizes[i].name, table) + HEAD, table->count);
        fb3_param_table_free(table);
    }
}

static void test_parameter_counts(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++) {
        fb3_param_table *table = table_of(sizes[i].preset);
        const int64_t C = table->model.hidden, head = TARGETS * C + TARGETS;
        if (sizes[i].parameters) assert_int_equal(table->full_parameters, sizes[i].parameters + head);
        assert_int_equal(table->parameters, table->full_parameters - (128100 - ACTIVE) * C);
        fb3_param_table_free(table);
    }
}

static void test_arena_layout(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++) {
        fb3_param_table *table = table_of(sizes[i].preset);
        int64_t end = 0, trained = 0;
        for (int k = 0; k < table->count; k++) {
            const fb3_param *param = &table->param[k];
            assert_true(param->offset >= end && param->offset < end + 16);
            assert_int_equal(param->offset % 16, 0);
            assert_int_equal(param->count, (int64_t)param->rows * (param->cols ? param->cols : 1));
            end = param->offset + param->count;
            trained += param->count;

            const fb3_param_range *range = &table->range[param->range];
            assert_true(param->offset >= range->offset && end <= range->offset + range->count);
            assert_int_equal(param->layer, range->layer);
            assert_ptr_equal(fb3_param_find(table, param->kind, param->layer), param);
            assert_ptr_equal(fb3_param_by_name(table, param->name), param);
        }
        assert_int_equal(trained, table->parameters);
        assert_true(table->size >= end && table->size < end + 16);
        assert_null(fb3_param_by_name(table, "pooler.dense.weight"));
        fb3_param_table_free(table);
    }
}

/* Ranges tile the arena in the order in which gradients close. */
static void test_ranges(void **state)
{
    (void)state;
    fb3_param_table *table = table_of("deberta-v3-base");
    const int L = table->model.layers;
    int64_t end = 0;
    assert_int_equal(table->ranges, L + 2);
    for (int i = 0; i < table->ranges; i++) {
        assert_int_equal(table->range[i].offset, end);
        end += table->range[i].count;
        assert_int_equal(table->range[i].layer, i == 0 || i == L + 1 ? -1 : L - i);
    }
    assert_int_equal(end, table->size);
    assert_int_equal(fb3_param_find(table, FB3_PARAM_HEAD_WEIGHT, -1)->range, 0);
    assert_int_equal(fb3_param_find(table, FB3_PARAM_WORD, -1)->range, L + 1);
    fb3_param_table_free(table);
}

static void test_projections_are_neighbours(void **state)
{
    (void)state;
    const fb3_param_kind weights[] = {FB3_PARAM_QUERY_WEIGHT, FB3_PARAM_KEY_WEIGHT, FB3_PARAM_VALUE_WEIGHT};
    const fb3_param_kind biases[] = {FB3_PARAM_QUERY_BIAS, FB3_PARAM_KEY_BIAS, FB3_PARAM_VALUE_BIAS};
    for (int i = 0; i < SIZES; i++) {
        fb3_param_table *table = table_of(sizes[i].preset);
        const int64_t C = table->model.hidden;
        for (int l = 0; l < table->model.layers; l++)
            for (int k = 1; k < 3; k++) {
                assert_int_equal(fb3_param_find(table, weights[k], l)->offset,
                                 fb3_param_find(table, weights[0], l)->offset + k * C * C);
                assert_int_equal(fb3_param_find(table, biases[k], l)->offset,
                                 fb3_param_find(table, biases[0], l)->offset + k * C);
            }
        fb3_param_table_free(table);
    }
}

static void test_bad_sizes(void **state)
{
    (void)state;
    fb3_model_config model;
    fb3_param_table *table;
    must(fb3_model_config_preset(&model, "tiny", 100));
    assert_int_equal(fb3_param_table_create(&table, &model, 101, TARGETS), FB3_INPUT);
    assert_null(table);
    assert_int_equal(fb3_param_table_create(&table, &model, 0, TARGETS), FB3_INPUT);
    assert_int_equal(fb3_param_table_create(&table, &model, 10, 0), FB3_INPUT);
}

static double mean_square(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum / (double)n;
}

/* A random start has transformers' distributions, depends on seed and name only, and leaves padding at zero. */
static void test_random_start(void **state)
{
    (void)state;
    fb3_model_config model;
    fb3_param_table *few, *many;
    fb3_weights a, b;
    must(fb3_model_config_preset(&model, "tiny", 5000));
    must(fb3_param_table_create(&few, &model, 3, TARGETS));
    must(fb3_param_table_create(&many, &model, 5000, 1));
    must(fb3_weights_alloc(&a, few));
    must(fb3_weights_alloc(&b, many));
    fb3_weights_random(&a, few, 42);
    fb3_weights_random(&b, many, 42);
    for (int i = 0; i < few->count; i++) {
        const fb3_param *p = &few->param[i], *q = fb3_param_by_name(many, p->name);
        const float *x = a.arena + p->offset;
        if (p->init == FB3_INIT_ZERO) assert_true(mean_square(x, p->count) == 0);
        if (p->init == FB3_INIT_ONE) assert_true(x[0] == 1 && mean_square(x, p->count) == 1);
        if (p->init == FB3_INIT_NORMAL && p->kind != FB3_PARAM_WORD) {
            double ratio = mean_square(x, p->count) / (0.02 * 0.02);
            assert_true(ratio > 0.8 && ratio < 1.2);
        }
        if (p->kind == FB3_PARAM_HEAD_WEIGHT || p->kind == FB3_PARAM_HEAD_BIAS || p->kind == FB3_PARAM_WORD) continue;
        assert_memory_equal(x, b.arena + q->offset, (size_t)p->count * sizeof *x);
    }
    const size_t words = 5000 * 64;
    assert_memory_equal(a.word_full, b.word_full, words * sizeof(float));
    assert_true(mean_square(a.word_full, 64) == 0); // [PAD]
    assert_true(mean_square(a.word_full + 64, 64 * 4999) > 0.95 * 0.02 * 0.02);

    const uint32_t ids[] = {1, 77, 4999};
    const int64_t word = fb3_param_find(few, FB3_PARAM_WORD, -1)->offset;
    fb3_weights_gather_word(&a, few, ids);
    for (int row = 0; row < 3; row++)
        assert_memory_equal(a.arena + word + row * 64, b.word_full + ids[row] * 64, 64 * sizeof(float));
    a.arena[word + 64] = 5;
    fb3_weights_scatter_word(&a, few, ids);
    assert_true(a.word_full[77 * 64] == 5 && a.word_full[78 * 64] == b.word_full[78 * 64]);

    fb3_weights_random(&b, many, 43);
    assert_memory_not_equal(a.word_full + 64, b.word_full + 64, 64 * sizeof(float));
    fb3_weights_free(&a);
    fb3_weights_free(&b);
    fb3_param_table_free(few);
    fb3_param_table_free(many);
}

static void test_random_head_leaves_the_encoder(void **state)
{
    (void)state;
    fb3_param_table *table = table_of("tiny");
    fb3_weights a, b;
    must(fb3_weights_alloc(&a, table));
    must(fb3_weights_alloc(&b, table));
    fb3_weights_random(&b, table, 7);
    fb3_weights_random_head(&a, table, 7);
    const fb3_param *head = fb3_param_find(table, FB3_PARAM_HEAD_WEIGHT, -1);
    assert_memory_equal(a.arena + head->offset, b.arena + head->offset, (size_t)head->count * sizeof(float));
    for (int64_t i = table->range[1].offset; i < table->size; i++) assert_true(a.arena[i] == 0);
    fb3_weights_free(&a);
    fb3_weights_free(&b);
    fb3_param_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_shapes_of_transformers),
        cmocka_unit_test(test_parameter_counts),
        cmocka_unit_test(test_arena_layout),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_projections_are_neighbours),
        cmocka_unit_test(test_bad_sizes),
        cmocka_unit_test(test_random_start),
        cmocka_unit_test(test_random_head_leaves_the_encoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
