/* The configuration as text: round trip, comparison on resume, template and help. */
#include "base/capture.h"
#include "base/scratch.h"
#include "fb3/rng.h"

#include "../../src/base/options.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ESSENTIALS "--train_file", "a.csv", "--model_name_or_path", "m"

static void expect_ok(fb3_status status)
{
    if (status != FB3_OK) fail_msg("%s", fb3_error_text());
}

/* text -> configuration -> the same text. */
static void check_round_trip(const fb3_config *config)
{
    fb3_config again;
    char *text = fb3_config_text(config);
    expect_ok(fb3_config_load_text(&again, text, "run.yaml"));
    char *second = fb3_config_text(&again);
    assert_string_equal(second, text);
    fb3_config_free(&again);
    free(text);
    free(second);
}

static const char *const TEXTS[] = {
    "plain",
    "two words",
    " spaces ",
    "null",
    "~",
    "true",
    "no",
    "1e-5",
    "-",
    "- x",
    "a: b",
    "a:b",
    "# none",
    "a # b",
    "'single'",
    "\"double\"",
    "back\\slash",
    "{a: b}",
    "[a, b]",
    "a,b",
    "&anchor",
    "*alias",
    "!tag",
    "%percent",
    "@at",
    "`tick`",
    "|",
    ">",
    "?",
    "...",
    "---",
    "two\nlines\n",
    "tab\tand\rreturn",
    "bell\a escape\033[31m delete\x7f",
    "${HOME}",
    "$${HOME}",
    "$$${X}",
    "$",
    "${",
    "caf\xc3\xa9",
    "\xe6\xbc\xa2\xe5\xad\x97",
    "\xf0\x9f\x98\x80",
    "no-break\xc2\xa0space",
    "next\xc2\x85line",
    "line \xe2\x80\xa8 separator",
    "mark\xef\xbb\xbf",
    "\xef\xbf\xbe",
    "/data/Projekt Ä/train.csv",
    "C:\\x\\n",
    "long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
};

static void texts_come_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        fb3_config config, again;
        char notes[400], file[400];
        snprintf(notes, sizeof notes, "--wandb_notes=%s", TEXTS[i]);
        snprintf(file, sizeof file, "--validation_file=%s", TEXTS[i]);
        expect_ok(PARSE(&config, ESSENTIALS, notes, file));
        char *text = fb3_config_text(&config);
        expect_ok(fb3_config_load_text(&again, text, "run.yaml"));
        assert_string_equal(again.wandb_notes, TEXTS[i]);
        assert_string_equal(again.validation_file, TEXTS[i]);
        check_round_trip(&again);
        free(text);
        fb3_config_free(&config);
        fb3_config_free(&again);
    }
}

static void lists_come_back(void **state)
{
    (void)state;
    fb3_config config, again;
    expect_ok(PARSE(&config, ESSENTIALS));
    fb3_strings_free(&config.label_columns);
    int count = sizeof TEXTS / sizeof *TEXTS;
    for (int i = 0; i < count; i++) expect_ok(fb3_strings_add(&config.label_columns, TEXTS[i]));
    char *text = fb3_config_text(&config);
    expect_ok(fb3_config_load_text(&again, text, "run.yaml"));
    assert_int_equal(again.label_columns.count, count);
    for (int i = 0; i < count; i++) assert_string_equal(again.label_columns.item[i], TEXTS[i]);
    free(text);
    fb3_config_free(&config);
    fb3_config_free(&again);
}

/* Doubles of random bits, in the range of learning_rate and of max_grad_norm. */
static void numbers_come_back_bit_for_bit(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 500; i++) {
        fb3_philox random = fb3_philox4x32(i, 0, 0, 0, 1, 2);
        double fraction = ((double)random.word[0] + random.word[1] * 0x1p-32) * 0x1p-32;
        double rate = fraction * pow(2, -(double)(random.word[2] % 200)), norm = fraction * pow(2, random.word[3] % 90);
        fb3_config config, again;
        char rate_word[64], norm_word[64];
        snprintf(rate_word, sizeof rate_word, "--learning_rate=%.17g", rate);
        snprintf(norm_word, sizeof norm_word, "--max_grad_norm=%.17g", norm);
        expect_ok(PARSE(&config, ESSENTIALS, rate_word, norm_word));
        char *text = fb3_config_text(&config);
        expect_ok(fb3_config_load_text(&again, text, "run.yaml"));
        assert_memory_equal(&again.learning_rate, &rate, sizeof rate);
        assert_memory_equal(&again.max_grad_norm, &norm, sizeof norm);
        free(text);
        fb3_config_free(&config);
        fb3_config_free(&again);
    }
}

static void everything_set_comes_back(void **state)
{
    (void)state;
    fb3_config config, again;
    expect_ok(PARSE(&config, "--train_file", "a.csv", "--model_preset", "tiny", "--init", "random", "--tokenizer", "t",
                    "--lr_scheduler_type", "polynomial", "--lr_scheduler_kwargs", "{\"power\": 0.1, \"lr_end\": 1e-9}",
                    "--train_folds", "0,2", "--fold_groups", "3", "--data_seed", "4294967295", "--eval_strategy=steps",
                    "--eval_steps", "0.05", "--early_stopping_patience", "2", "--bf16", "--device=cuda",
                    "--loss_type=smooth-l1", "--report_to=wandb,tensorboard", "--total_train_batch_size", "64",
                    "--gradient_accumulation_steps", "2", "--max_eval_samples=10", "--bind", "keep"));
    check_round_trip(&config);
    char *text = fb3_config_text(&config);
    expect_ok(fb3_config_load_text(&again, text, "run.yaml"));
    assert_int_equal(again.gradient_accumulation_steps, 2);
    assert_int_equal(again.data_seed, 4294967295);
    assert_string_equal(again.lr_scheduler_kwargs, "{\"lr_end\": 1e-09, \"power\": 0.1}");
    assert_int_equal(again.loss_type, FB3_LOSS_SMOOTH_L1);
    assert_int_equal(again.bf16, FB3_ON);
    free(text);
    fb3_config_free(&config);
    fb3_config_free(&again);
}

/* run.yaml runs unedited: through the front door, and with the accumulation following the ranks. */
static void a_stored_text_is_a_configuration(void **state)
{
    (void)state;
    fb3_config config, again;
    expect_ok(PARSE(&config, ESSENTIALS, "--use_cpu", "--resume", "never", "--dry_run"));
    config.total_train_batch_size = 64; /* as the first start resolves it */
    config.gradient_accumulation_steps = 4;
    char *text = fb3_config_text(&config);
    scratch_write("run.yaml", text);
    expect_ok(PARSE(&again, "run.yaml"));
    assert_int_equal(again.total_train_batch_size, 64);
    assert_false(fb3_config_given(&again, "gradient_accumulation_steps"));
    assert_int_equal(again.device, FB3_DEVICE_CPU);
    assert_int_equal(again.resume, FB3_RESUME_AUTO);
    assert_false(again.dry_run);
    expect_ok(fb3_config_check_resume(text, &again));
    free(text);
    fb3_config_free(&config);
    fb3_config_free(&again);
}

/* What may change on resume: expect names the key that is refused, or is NULL. */
static void resume_keeps_what_it_must(void **state)
{
    (void)state;
    static const struct {
        const char *before[4], *after[4], *expect;
    } CASES[] = {
        {{"--seed", "1"}, {"--seed", "1"}, NULL},
        {{"--seed", "1"}, {"--seed", "2"}, "--seed: the run was started with 1 and is now to go on with 2"},
        {{NULL}, {"--learning_rate", "2e-5"}, "--learning_rate: the run was started with 1e-05"},
        {{NULL}, {"--num_train_epochs", "11"}, "num_train_epochs"},
        {{NULL}, {"--folds", "4"}, "folds"},
        {{NULL}, {"--loss_type", "mse"}, "loss_type"},
        {{NULL}, {"--label_columns", "grammar"}, "label_columns"},
        {{NULL}, {"--head_dropout", "0.1"}, "head_dropout"},
        {{NULL}, {"--max_length", "1024"}, "max_length"},
        {{NULL}, {"--save_strategy", "no"}, "save_strategy"},
        {{NULL}, {"--lr_scheduler_type", "cosine"}, "lr_scheduler_type"},
        {{NULL}, {"--bf16"}, "bf16"},
        {{NULL}, {"--data_seed", "42"}, "data_seed"},
        {{NULL}, {"--train_folds", "1,2"}, NULL},
        {{NULL}, {"--fold_groups", "2"}, NULL},
        {{NULL}, {"--bind", "keep"}, NULL},
        {{NULL}, {"--profile", "x.json"}, NULL},
        {{NULL}, {"--device", "cuda"}, NULL},
        {{NULL}, {"--use_cpu"}, NULL},
        {{"--reproducible"}, {"--reproducible", "--device", "cuda"}, "device"},
        {{NULL}, {"--logging_steps", "10"}, NULL},
        {{NULL}, {"--log_samples"}, NULL},
        {{NULL}, {"--report_to", "wandb"}, NULL},
        {{NULL}, {"--wandb_project", "x"}, NULL},
        {{NULL}, {"--run_name", "x"}, NULL},
        {{NULL}, {"--ddp_timeout", "60"}, NULL},
        {{NULL}, {"--stop_before_end", "60"}, NULL},
        {{NULL}, {"--resume", "last.h5"}, NULL},
        {{NULL}, {"--output_dir", "moved"}, NULL},
        {{NULL}, {"--tokenizer", "elsewhere"}, NULL},
        {{NULL}, {"--train_file", "elsewhere.csv"}, NULL},
        {{NULL}, {"--validation_file", "v.csv"}, "validation_file"},
        {{"--validation_file", "v.csv"}, {"--validation_file", "w.csv"}, NULL},
        {{NULL}, {"--folds_file", "f.csv"}, "folds_file"},
        {{"--total_train_batch_size", "16"}, {"--per_device_train_batch_size", "4"}, NULL},
        {{"--total_train_batch_size", "16"}, {"--gradient_accumulation_steps", "2"}, NULL},
        {{"--total_train_batch_size", "16"},
         {"--per_device_train_batch_size", "2", "--total_train_batch_size", "16"},
         NULL},
        {{"--total_train_batch_size", "16"},
         {"--total_train_batch_size", "32"},
         "--total_train_batch_size: the run was "
         "started with 16"},
        {{"--total_train_batch_size", "16"},
         {"--per_device_train_batch_size", "2", "--total_train_batch_size", "8"},
         "--total_train_batch_size"},
        {{NULL}, {"--per_device_train_batch_size", "2"}, "per_device_train_batch_size"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const char *before[9] = {ESSENTIALS}, *after[9] = {ESSENTIALS};
        memcpy(before + 4, CASES[i].before, sizeof CASES[i].before);
        memcpy(after + 4, CASES[i].after, sizeof CASES[i].after);
        fb3_config then, now;
        expect_ok(scratch_parse(&then, before));
        expect_ok(scratch_parse(&now, after));
        char *text = fb3_config_text(&then);
        fb3_status status = fb3_config_check_resume(text, &now);
        if (!CASES[i].expect) {
            if (status != FB3_OK) fail_msg("%s %s: %s", after[4], after[5], fb3_error_text());
        } else {
            if (status != FB3_INPUT) fail_msg("%s %s was not refused", after[4], after[5]);
            if (!strstr(fb3_error_text(), CASES[i].expect)) fail_msg("%s", fb3_error_text());
        }
        free(text);
        fb3_config_free(&then);
        fb3_config_free(&now);
    }
}

static void a_broken_stored_text_is_refused(void **state)
{
    (void)state;
    fb3_config now;
    expect_ok(PARSE(&now, ESSENTIALS));
    static const char *const BROKEN[] = {"seed: [1", "seed: x\n", "no_such_key: 1\n", "a\xff: 1\n", "- 1\n"};
    for (size_t i = 0; i < sizeof BROKEN / sizeof *BROKEN; i++) {
        assert_int_equal(fb3_config_check_resume(BROKEN[i], &now), FB3_INPUT);
        assert_non_null(strstr(fb3_error_text(), "stored configuration:1"));
    }
    expect_ok(fb3_config_check_resume("", &now)); /* nothing stored: all defaults */
    fb3_config_free(&now);
}

/* The template as it is written, and with every "#key" line made active. */
static void the_template_is_the_defaults(void **state)
{
    (void)state;
    fb3_config plain, written, active;
    expect_ok(PARSE(&plain, "--train_file", "train.csv", "--model_name_or_path", "microsoft/deberta-v3-base"));
    char *text = fb3_config_template(), *expected = fb3_config_text(&plain);
    scratch_write("fb3.yaml", text);
    expect_ok(PARSE(&written, NULL));
    char *as_written = fb3_config_text(&written);
    assert_string_equal(as_written, expected);
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (line[0] == '#' && line[1] >= 'a' && line[1] <= 'z') line[0] = ' ';
        if (line[0] == ' ') memmove(line, line + 1, strlen(line));
    }
    scratch_write("fb3.yaml", text);
    expect_ok(PARSE(&active, NULL));
    char *as_active = fb3_config_text(&active);
    assert_non_null(strstr(as_active, "gradient_accumulation_steps: 1\n"));
    int keys = 0;
    for (const char *line = expected; (line = strchr(line, '\n')); line++) keys++;
    for (const char *line = as_active; (line = strchr(line, '\n')); line++) keys--;
    assert_int_equal(keys, -1); /* the accumulation, now given */
    free(text), free(expected), free(as_written), free(as_active);
    fb3_config_free(&plain);
    fb3_config_free(&written);
    fb3_config_free(&active);
    unlink("fb3.yaml");
}

/* configs/fb3-deberta-v3-base.yaml is the recipe, which is what the defaults are. */
static void the_recipe_is_the_defaults(void **state)
{
    (void)state;
    const char *source = getenv("FB3_SOURCE_DIR");
    if (!source) skip();
    char path[4096];
    snprintf(path, sizeof path, "%s/configs/fb3-deberta-v3-base.yaml", source);
    fb3_config plain, recipe;
    expect_ok(PARSE(&plain, "--train_file", "train.csv", "--model_name_or_path", "microsoft/deberta-v3-base",
                    "--output_dir", "outputs/fb3-deberta-v3-base"));
    expect_ok(PARSE(&recipe, path));
    char *expected = fb3_config_text(&plain), *text = fb3_config_text(&recipe);
    assert_string_equal(text, expected);
    free(expected);
    free(text);
    fb3_config_free(&plain);
    fb3_config_free(&recipe);
}

static void help_names_every_option_of_a_verb(void **state)
{
    (void)state;
    for (int v = 0; v < fb3_verb_count; v++) {
        const fb3_verb *verb = &fb3_verb_table[v];
        capture_begin(STDOUT_FILENO);
        fb3_config_help(verb->name);
        char *text = capture_end(), line[200];
        for (int i = 0; i < fb3_option_count; i++) {
            const fb3_option *option = &fb3_option_table[i];
            snprintf(line, sizeof line, "\n  --%s%s", option->key, option->type == OPTION_BOOLEAN ? "" : " ");
            bool shown = strstr(text, line) != NULL;
            if (option->type != OPTION_BOOLEAN) assert_true(shown == ((option->verbs & verb->bit) != 0));
            if (option->verbs & verb->bit) assert_true(shown);
        }
        for (const char *start = text, *end; (end = strchr(start, '\n')); start = end + 1)
            assert_in_range(end - start, 0, 120);
        free(text);
    }
    capture_begin(STDOUT_FILENO);
    fb3_config_help(NULL);
    char *text = capture_end();
    assert_non_null(strstr(text, "  train "));
    assert_non_null(strstr(text, "  compare "));
    assert_null(strstr(text, "  ensemble "));
    free(text);
}

/* The table itself: unique names, defaults that are valid, a verb and a sentence for each; and the synonyms. */
static void the_table_is_sound(void **state)
{
    (void)state;
    for (int i = 0; i < fb3_option_count; i++) {
        const fb3_option *option = &fb3_option_table[i];
        assert_ptr_equal(fb3_option_find(option->key), option);
        assert_true(option->verbs != 0 && option->help && *option->help);
        const char *cursor = NULL;
        char alias[FB3_OPTION_NAME_BYTES];
        while (fb3_option_next_alias(option, &cursor, alias)) assert_ptr_equal(fb3_option_find(alias), option);
        for (int j = 0; j < i; j++) assert_true(fb3_option_table[j].offset != option->offset);
        if (option->type == OPTION_INTEGER || option->type == OPTION_REAL) assert_true(option->low < option->high);
        if (option->type == OPTION_WORD) assert_non_null(option->words);
    }
    expect_ok(fb3_synonyms_check());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(lists_come_back),
        cmocka_unit_test(numbers_come_back_bit_for_bit),
        cmocka_unit_test(everything_set_comes_back),
        cmocka_unit_test(a_stored_text_is_a_configuration),
        cmocka_unit_test(resume_keeps_what_it_must),
        cmocka_unit_test(a_broken_stored_text_is_refused),
        cmocka_unit_test(the_template_is_the_defaults),
        cmocka_unit_test(the_recipe_is_the_defaults),
        cmocka_unit_test(help_names_every_option_of_a_verb),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
