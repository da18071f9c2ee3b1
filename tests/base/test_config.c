/* Good input: the contract's keys and defaults, precedence, aliases, spellings, verbs, expansion. */
#include "base/capture.h"
#include "base/scratch.h"

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

/* The value of a key in the text of a configuration, or NULL. Caller frees. */
static char *value_in(const char *text, const char *key)
{
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0 && line[length] == ':')
            return strndup(line + length + 2, strcspn(line + length + 2, "\n"));
    }
    return NULL;
}

static void check_value(const fb3_config *config, const char *key, const char *expected)
{
    char *text = fb3_config_text(config), *value = value_in(text, key);
    if (!value) fail_msg("no %s in the text", key);
    assert_string_equal(value, expected);
    free(value);
    free(text);
}

/* The table of the contract, section 2, written again by hand. */
static void defaults_are_those_of_the_contract(void **state)
{
    (void)state;
    static const char *const DEFAULTS[][2] = {
        {"model_name_or_path", "m"},
        {"model_revision", "null"},
        {"model_preset", "null"},
        {"init", "null"},
        {"tokenizer", "null"},
        {"train_file", "a.csv"},
        {"test_file", "null"},
        {"validation_file", "null"},
        {"id_column", "text_id"},
        {"text_column", "full_text"},
        {"label_columns", "[cohesion, syntax, vocabulary, phraseology, grammar, conventions]"},
        {"output_dir", "outputs"},
        {"max_length", "512"},
        {"per_device_train_batch_size", "8"},
        {"per_device_eval_batch_size", "16"},
        {"total_train_batch_size", "null"},
        {"num_train_epochs", "10"},
        {"max_steps", "-1"},
        {"max_train_samples", "null"},
        {"max_eval_samples", "null"},
        {"max_predict_samples", "null"},
        {"learning_rate", "1e-05"},
        {"weight_decay", "1e-06"},
        {"adam_beta1", "0.9"},
        {"adam_beta2", "0.999"},
        {"adam_epsilon", "1e-06"},
        {"max_grad_norm", "1000"},
        {"lr_scheduler_type", "linear"},
        {"lr_scheduler_kwargs", "{}"},
        {"warmup_ratio", "0.1"},
        {"warmup_steps", "0"},
        {"loss_type", "rmse"},
        {"smooth_l1_beta", "1"},
        {"hidden_dropout_prob", "0"},
        {"attention_probs_dropout_prob", "0"},
        {"head_dropout", "0.2"},
        {"folds", "3"},
        {"fold_method", "iterstrat-compat"},
        {"folds_file", "null"},
        {"fold_column", "null"},
        {"train_folds", "all"},
        {"fold_groups", "auto"},
        {"group_by_length", "false"},
        {"seed", "42"},
        {"data_seed", "null"},
        {"eval_strategy", "epoch"},
        {"eval_steps", "null"},
        {"eval_delay", "0"},
        {"save_strategy", "epoch"},
        {"save_steps", "null"},
        {"save_total_limit", "1"},
        {"save_only_model", "false"},
        {"save_initial", "false"},
        {"load_best_model_at_end", "true"},
        {"metric_for_best_model", "eval_MCRMSE"},
        {"early_stopping_patience", "off"},
        {"bf16", "auto"},
        {"gradient_checkpointing", "false"},
        {"device", "auto"},
        {"reproducible", "false"},
        {"reproducible_leaves", "8"},
        {"attention_impl", "auto"},
        {"tf32", "false"},
        {"max_nonfinite_steps", "10"},
        {"bind", "auto"},
        {"profile", "null"},
        {"report_to", "[none]"},
        {"wandb_project", "FB3-deberta-v3"},
        {"wandb_entity", "null"},
        {"wandb_group", "FB3-BASELINE-MODEL"},
        {"wandb_tags", "null"},
        {"wandb_notes", "null"},
        {"wandb_dir", "null"},
        {"run_name", "null"},
        {"logging_steps", "1"},
        {"log_samples", "false"},
        {"ddp_timeout", "1800"},
        {"stop_before_end", "180"},
    };
    fb3_config config;
    expect_ok(PARSE(&config, ESSENTIALS));
    for (size_t i = 0; i < sizeof DEFAULTS / sizeof *DEFAULTS; i++)
        check_value(&config, DEFAULTS[i][0], DEFAULTS[i][1]);
    assert_int_equal(config.gradient_accumulation_steps, 1);
    assert_int_equal(config.resume, FB3_RESUME_AUTO);
    assert_string_equal(config.verb, "train");
    assert_null(config.config_file);
    expect_ok(fb3_config_check_supported(&config));
    fb3_config_free(&config);
}

static void the_fields_hold_what_was_given(void **state)
{
    (void)state;
    scratch_write("c.yaml", "train_file: a.csv\n"
                            "model_preset: tiny\n"
                            "init: random\n"
                            "tokenizer: tok\n"
                            "label_columns: [cohesion, 'a, b']\n"
                            "learning_rate: 2e-5\n"
                            "loss_type: L1_EPS\n"
                            "lr_scheduler_type: polynomial\n"
                            "lr_scheduler_kwargs: {power: 2, lr_end: 1e-7}\n"
                            "save_strategy: no\n"
                            "bf16: off\n"
                            "early_stopping_patience: 3\n"
                            "train_folds: [2, 0]\n"
                            "wandb_tags: one, two\n"
                            "seed: 007\n"
                            "metric_for_best_model: cohesion_rmse\n"
                            "warmup_steps: 0.25\n");
    fb3_config config;
    expect_ok(PARSE(&config, "c.yaml"));
    assert_string_equal(config.config_file, "c.yaml");
    assert_string_equal(config.model_preset, "tiny");
    assert_int_equal(config.label_columns.count, 2);
    assert_string_equal(config.label_columns.item[1], "a, b");
    assert_true(config.learning_rate == 2e-5);
    assert_int_equal(config.loss_type, FB3_LOSS_RMSE);
    assert_int_equal(config.lr_scheduler_type, FB3_SCHEDULER_POLYNOMIAL);
    assert_string_equal(config.lr_scheduler_kwargs, "{\"lr_end\": 1e-07, \"power\": 2}");
    assert_int_equal(config.save_strategy, FB3_STRATEGY_NO);
    assert_int_equal(config.bf16, FB3_OFF);
    assert_int_equal(config.early_stopping_patience, 3);
    assert_string_equal(config.train_folds, "2,0");
    assert_int_equal(config.wandb_tags.count, 2);
    assert_string_equal(config.wandb_tags.item[1], "two");
    assert_int_equal(config.seed, 7);
    assert_string_equal(config.metric_for_best_model, "eval_COHESION_RMSE");
    assert_true(config.warmup_steps == 0.25);
    assert_int_equal(config.data_seed, FB3_UNSET_INT);
    assert_true(isnan(config.eval_steps));
    assert_true(fb3_config_given(&config, "seed"));
    assert_false(fb3_config_given(&config, "folds"));
    bool selected[3];
    expect_ok(fb3_config_train_folds(&config, 3, selected));
    assert_true(selected[0] && !selected[1] && selected[2]);
    assert_int_equal(fb3_config_train_folds(&config, 2, selected), FB3_INPUT);
    fb3_config_free(&config);
}

static void check_seed(int64_t expected, const char *const *words)
{
    fb3_config config;
    expect_ok(scratch_parse(&config, words));
    assert_int_equal(config.seed, expected);
    assert_true(fb3_config_given(&config, "seed") == (expected != 42));
    fb3_config_free(&config);
}

static void the_command_line_wins_then_yaml_then_environment(void **state)
{
    (void)state;
    scratch_write("seed.yaml", "seed: 3\n");
    scratch_write("none.yaml", "folds: 3\n");
    static const char *const NONE[] = {"none.yaml", ESSENTIALS, NULL};
    static const char *const YAML[] = {"seed.yaml", ESSENTIALS, NULL};
    static const char *const BOTH[] = {"seed.yaml", "--seed", "4", ESSENTIALS, NULL};
    static const char *const TWICE[] = {"--seed", "4", "--seed=5", ESSENTIALS, NULL};
    check_seed(42, NONE);
    setenv("FB3_SEED", "2", 1);
    check_seed(2, NONE);
    check_seed(3, YAML);
    check_seed(4, BOTH);
    unsetenv("FB3_SEED");
    check_seed(5, TWICE);
}

static void aliases_and_spellings_are_the_same_key(void **state)
{
    (void)state;
    fb3_config config;
    expect_ok(PARSE(&config, ESSENTIALS, "--tokenizer-name", "t", "--evaluation_strategy=steps", "--eval-steps", "50",
                    "--train_sampling_strategy", "group_by_length", "--resume_from_checkpoint", "last.h5", "--no_cuda",
                    "--no_load_best_model_at_end", "--save_only_model", "--log_samples", "False", "--max_steps", "-1",
                    "--device", "CPU", "--wandb_notes=--dashes"));
    assert_string_equal(config.tokenizer, "t");
    assert_int_equal(config.eval_strategy, FB3_STRATEGY_STEPS);
    assert_true(config.eval_steps == 50);
    assert_true(config.group_by_length);
    assert_int_equal(config.resume, FB3_RESUME_PATH);
    assert_string_equal(config.resume_path, "last.h5");
    assert_true(config.use_cpu);
    assert_int_equal(config.device, FB3_DEVICE_CPU);
    assert_false(config.load_best_model_at_end);
    assert_true(config.save_only_model);
    assert_false(config.log_samples);
    assert_string_equal(config.wandb_notes, "--dashes");
    fb3_config_free(&config);
    expect_ok(PARSE(&config, ESSENTIALS, "--resume_from_checkpoint", "False", "--train_sampling_strategy", "random"));
    assert_int_equal(config.resume, FB3_RESUME_NEVER);
    assert_false(config.group_by_length);
    fb3_config_free(&config);
}

static void booleans_are_read_in_every_spelling(void **state)
{
    (void)state;
    static const char *const TRUES[] = {"true", "True", "YES", "on", "1"};
    static const char *const FALSES[] = {"false", "False", "No", "OFF", "0"};
    for (int i = 0; i < 5; i++) {
        fb3_config config;
        expect_ok(PARSE(&config, ESSENTIALS, "--save_initial", TRUES[i], "--load_best_model_at_end", FALSES[i]));
        assert_true(config.save_initial);
        assert_false(config.load_best_model_at_end);
        fb3_config_free(&config);
    }
}

static void a_flag_does_not_swallow_the_word_behind_it(void **state)
{
    (void)state;
    fb3_config config;
    scratch_write("c.yaml", "train_file: a.csv\nmodel_name_or_path: m\n");
    expect_ok(PARSE(&config, "--dry_run", "train", "--quiet", "c.yaml"));
    assert_true(config.dry_run && config.quiet);
    assert_string_equal(config.config_file, "c.yaml");
    fb3_config_free(&config);
}

static void words_go_to_their_verb(void **state)
{
    (void)state;
    fb3_config config;
    expect_ok(
        PARSE(&config, "predict", "outputs", "fold-1/best.h5", "--test_file", "t.csv", "--clip_predictions", "1,5"));
    assert_string_equal(config.verb, "predict");
    assert_int_equal(config.arguments.count, 2);
    assert_string_equal(config.arguments.item[1], "fold-1/best.h5");
    assert_string_equal(config.clip_predictions, "1,5");
    fb3_config_free(&config);
    expect_ok(PARSE(&config, "export", "run.yaml", "--output", "x", "--format", "torch", "--dtype=bf16"));
    assert_string_equal(config.arguments.item[0], "run.yaml");
    assert_int_equal(config.format, FB3_EXPORT_TORCH);
    assert_int_equal(config.dtype, FB3_EXPORT_BFLOAT16);
    fb3_config_free(&config);
    expect_ok(PARSE(&config, "init"));
    assert_int_equal(config.arguments.count, 0);
    fb3_config_free(&config);
    expect_ok(PARSE(&config, "inspect", "--", "--odd name"));
    assert_string_equal(config.arguments.item[0], "--odd name");
    fb3_config_free(&config);
    expect_ok(PARSE(&config, "doctor"));
    fb3_config_free(&config);
}

static void the_yaml_is_found(void **state)
{
    (void)state;
    fb3_config config;
    assert_int_equal(PARSE(&config, NULL), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "fb3.yaml"));
    assert_non_null(strstr(fb3_error_text(), "fb3-dist init"));
    fb3_config_free(&config);
    scratch_write("fb3.yaml", "train_file: a.csv\nmodel_name_or_path: m\nseed: 1\n");
    scratch_write("named.txt", "train_file: a.csv\nmodel_name_or_path: m\nseed: 2\n");
    scratch_write("given.yml", "train_file: a.csv\nmodel_name_or_path: m\nseed: 3\n");
    static const char *const EMPTY[] = {NULL}, *const OPTION[] = {"--folds", "4", NULL},
                             *const GIVEN[] = {"given.yml", NULL};
    check_seed(1, EMPTY);
    check_seed(1, OPTION);
    setenv("FB3_CONFIG", "named.txt", 1);
    check_seed(2, EMPTY);
    check_seed(3, GIVEN);
    expect_ok(PARSE(&config, "doctor")); /* reads no configuration, so none can break it */
    assert_null(config.config_file);
    fb3_config_free(&config);
    unsetenv("FB3_CONFIG");
    unlink("fb3.yaml");
}

static void variables_expand_in_yaml(void **state)
{
    (void)state;
    setenv("SCRATCH", "/data", 1);
    setenv("EMPTY", "", 1);
    unsetenv("UNSET");
    scratch_write("c.yaml", "train_file: ${SCRATCH}/a.csv\n"
                            "model_name_or_path: \"${UNSET:-m}/${EMPTY:-n}${EMPTY}\"\n"
                            "wandb_notes: 'costs $5, $SCRATCH $${SCRATCH}'\n"
                            "label_columns: [\"${UNSET:-grammar}\"]\n"
                            "wandb_entity: ${UNSET:-}\n"
                            "lr_scheduler_type: polynomial\n"
                            "lr_scheduler_kwargs: {power: \"${UNSET:-3}\"}\n");
    fb3_config config;
    expect_ok(PARSE(&config, "c.yaml", "--wandb_group", "${SCRATCH}"));
    assert_string_equal(config.train_file.item[0], "/data/a.csv");
    assert_string_equal(config.model_name_or_path, "m/n");
    assert_string_equal(config.wandb_notes, "costs $5, $SCRATCH ${SCRATCH}");
    assert_string_equal(config.label_columns.item[0], "grammar");
    assert_string_equal(config.lr_scheduler_kwargs, "{\"power\": 3}");
    assert_string_equal(config.wandb_group, "${SCRATCH}");
    assert_null(config.wandb_entity);
    fb3_config_free(&config);
}

static void null_unsets_what_can_be_unset(void **state)
{
    (void)state;
    scratch_write("c.yaml", "train_file: a.csv\nmodel_name_or_path: m\nmax_train_samples: ~\nfold_groups:\n"
                            "early_stopping_patience: null\ntest_file: null\nrun_name: \"null\"\nwandb_tags: []\n");
    setenv("FB3_MAX_TRAIN_SAMPLES", "5", 1);
    fb3_config config;
    expect_ok(PARSE(&config, "c.yaml"));
    assert_int_equal(config.max_train_samples, FB3_UNSET_INT);
    assert_int_equal(config.fold_groups, FB3_UNSET_INT);
    assert_int_equal(config.early_stopping_patience, FB3_UNSET_INT);
    assert_null(config.test_file);
    assert_string_equal(config.run_name, "null");
    assert_int_equal(config.wandb_tags.count, 0);
    fb3_config_free(&config);
    unsetenv("FB3_MAX_TRAIN_SAMPLES");
}

static char *warnings_with(const char *variable, const char *value)
{
    fb3_config config;
    setenv(variable, value, 1);
    capture_begin(STDERR_FILENO);
    fb3_status status = PARSE(&config, ESSENTIALS);
    char *text = capture_end();
    unsetenv(variable);
    expect_ok(status);
    fb3_config_free(&config);
    return text;
}

static void unknown_variables_are_one_warning_line(void **state)
{
    (void)state;
    char *text = warnings_with("FB3_LERNING_RATE", "1");
    assert_non_null(strstr(text, "warning"));
    assert_non_null(strstr(text, "FB3_LERNING_RATE"));
    assert_non_null(strstr(text, "learning_rate"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    free(text);
    static const char *const KNOWN[][2] = {{"FB3_SOURCE_DIR", "."},
                                           {"FB3_SHARED_DIR", "."},
                                           {"FB3_BUILD_DIR", "."},
                                           {"FB3_LEARNING_RATE", "1e-4"},
                                           {"FB3_TOKENIZER_NAME", "t"}};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        char *kept = getenv(KNOWN[i][0]) ? strdup(getenv(KNOWN[i][0])) : NULL;
        text = warnings_with(KNOWN[i][0], KNOWN[i][1]);
        assert_string_equal(text, "");
        free(text);
        if (kept) setenv(KNOWN[i][0], kept, 1);
        free(kept);
    }
}

static void steps_below_one_are_a_share(void **state)
{
    (void)state;
    assert_int_equal(fb3_config_steps(0.1, 100), 10);
    assert_int_equal(fb3_config_steps(0.1, 101), 11);
    assert_int_equal(fb3_config_steps(0.1, 30), 3); /* as math.ceil(30 * 0.1) */
    assert_int_equal(fb3_config_steps(0, 30), 0);
    assert_int_equal(fb3_config_steps(1, 30), 1);
    assert_int_equal(fb3_config_steps(500, 30), 500);
    assert_int_equal(fb3_config_steps(0.001, 30), 1);
}

static void help_wins_over_everything(void **state)
{
    (void)state;
    fb3_config config;
    expect_ok(PARSE(&config, "--bogus", "--help"));
    assert_true(config.help);
    assert_null(config.verb);
    fb3_config_free(&config);
    expect_ok(PARSE(&config, "predict", "-h"));
    assert_true(config.help);
    assert_string_equal(config.verb, "predict");
    fb3_config_free(&config);
    expect_ok(PARSE(&config, "--version"));
    assert_true(config.version);
    fb3_config_free(&config);
}

/* What this build leaves to later ones is refused by name, wherever it was set. */
static void what_is_not_built_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *words[6];
        const char *expect;
    } CASES[] = {
        {{"--report_to", "wandb"}, NULL},
        {{"ensemble"}, "the verb ensemble is not in this build yet"},
        {{"--device", "cuda", "--attention_impl", "reference"}, NULL},
        {{"--fold_groups", "2", "--reproducible", "--tf32"}, NULL},
    };
    scratch_write("fb3.yaml", "train_file: a.csv\nmodel_name_or_path: m\n");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const char *words[7] = {NULL};
        memcpy(words, CASES[i].words, sizeof CASES[i].words);
        fb3_config config;
        expect_ok(scratch_parse(&config, words));
        fb3_status status = fb3_config_check_supported(&config);
        if (!CASES[i].expect) {
            expect_ok(status);
        } else {
            assert_int_equal(status, FB3_INPUT);
            if (!strstr(fb3_error_text(), CASES[i].expect)) fail_msg("%s", fb3_error_text());
        }
        fb3_config_free(&config);
    }
    scratch_write("predict.yaml", "bf16: auto\nreport_to: wandb\n");
    fb3_config config;
    expect_ok(PARSE(&config, "predict", "predict.yaml", "--test_file", "t.csv"));
    expect_ok(fb3_config_check_supported(&config)); /* predict tracks nothing */
    fb3_config_free(&config);
    unlink("fb3.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_contract),
        cmocka_unit_test(the_fields_hold_what_was_given),
        cmocka_unit_test(the_command_line_wins_then_yaml_then_environment),
        cmocka_unit_test(aliases_and_spellings_are_the_same_key),
        cmocka_unit_test(booleans_are_read_in_every_spelling),
        cmocka_unit_test(a_flag_does_not_swallow_the_word_behind_it),
        cmocka_unit_test(words_go_to_their_verb),
        cmocka_unit_test(the_yaml_is_found),
        cmocka_unit_test(variables_expand_in_yaml),
        cmocka_unit_test(null_unsets_what_can_be_unset),
        cmocka_unit_test(unknown_variables_are_one_warning_line),
        cmocka_unit_test(steps_below_one_are_a_share),
        cmocka_unit_test(help_wins_over_everything),
        cmocka_unit_test(what_is_not_built_is_named),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
