/* Bad input, one row a case. Each must be FB3_INPUT with one line that names the key and where it stands, and leave a
 * configuration that is safe to free. A new case is a new row. */
#include "base/scratch.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_WORDS = 8, MOST_EXPECTED = 3, LONGEST_MESSAGE = 500 };

typedef struct bad_case {
    const char *yaml;              /* c.yaml from its third line on; the first two hold what is needed. NULL: no file */
    const char *variable, *value;  /* of the environment */
    const char *words[MOST_WORDS]; /* of the command line */
    const char *expect[MOST_EXPECTED]; /* all of these stand in the message */
} bad_case;

#define YAML(text, ...)                                                                                                \
    {                                                                                                                  \
        .yaml = text, .words = {"c.yaml"}, .expect = { __VA_ARGS__ }                                                   \
    }
#define ENVIRONMENT(name, text, ...)                                                                                   \
    {                                                                                                                  \
        .yaml = "", .variable = name, .value = text, .words = {"c.yaml"}, .expect = { __VA_ARGS__ }                    \
    }
/* clang-format off */
#define WORDS(...) .yaml = "", .words = {"c.yaml", __VA_ARGS__}
#define ALONE(...) .words = {__VA_ARGS__}

static const bad_case CASES[] = {
    /* keys that do not exist */
    YAML("lr: 1e-4\n", "c.yaml:3: unknown key 'lr'", "did you mean learning_rate?"),
    YAML("\n\n# x\nlearnin_rate: 1\n", "c.yaml:6", "did you mean learning_rate?"),
    YAML("Learning_Rate: 1\n", "c.yaml:3", "learning_rate?"),
    YAML("epochs: 3\n", "c.yaml:3", "num_train_epochs"),
    YAML("max_len: 3\n", "c.yaml:3", "max_length"),
    YAML("n_fold: 3\n", "c.yaml:3", "did you mean folds?"),
    YAML("trn_fold: [0]\n", "c.yaml:3", "did you mean train_folds?"),
    YAML("encoder_lr: 1\n", "c.yaml:3", "one learning rate, learning_rate"),
    YAML("overwrite_output_dir: true\n", "c.yaml:3", "another output_dir"),
    YAML("batch_size: 8\n", "c.yaml:3", "per_device_train_batch_size"),
    YAML("model: x\n", "c.yaml:3", "model_name_or_path"),
    YAML("fp16_full_eval: true\n", "c.yaml:3", "bf16"),
    YAML("optim: adamw_torch\n", "c.yaml:3", "AdamW"),
    YAML("greater_is_better: false\n", "c.yaml:3", "lower is better"),
    YAML("dataloader_num_workers: 4\n", "c.yaml:3", "leave it out"),
    YAML("full_determinism: true\n", "c.yaml:3", "reproducible"),
    YAML("xyzzy_quux: 1\n", "c.yaml:3: unknown key 'xyzzy_quux'", "--help"),
    YAML("help: true\n", "c.yaml:3: help", "command line"),
    YAML("version: 1\n", "c.yaml:3: version", "command line"),
    {WORDS("--lr", "1"), .expect = {"unknown option --lr", "did you mean --learning_rate?"}},
    {WORDS("--lr=1"), .expect = {"unknown option --lr", "did you mean --learning_rate?"}},
    {WORDS("--fold_grops=1"), .expect = {"--fold_groups?"}},
    {WORDS("--local_rank=0"), .expect = {"--local_rank", "mpirun"}},
    {WORDS("--do_train"), .expect = {"--do_train", "verb"}},
    {WORDS("--no_such_flag"), .expect = {"unknown option --no_such_flag"}},
    {WORDS("--no_seed"), .expect = {"unknown option --no_seed"}},
    {WORDS("--no_save_initial=true"), .expect = {"unknown option --no_save_initial"}},
    {WORDS("-x"), .expect = {"unknown option -x", "two dashes"}},
    {WORDS("-1"), .expect = {"unknown option -1"}},
    {WORDS("--=3"), .expect = {"unknown option --;"}},
    {WORDS(""), .expect = {"an empty word"}},
    {WORDS("--" "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), .expect = {"unknown option --aaaa"}},
    /* verbs and words */
    {ALONE("trian"), .expect = {"'trian'", "did you mean train?"}},
    {ALONE("predicts", "outputs"), .expect = {"'predicts'", "did you mean predict?"}},
    {ALONE("frobnicate"), .expect = {"'frobnicate'", "--help"}},
    {ALONE("train.csv"), .expect = {"train.csv", "--train_file train.csv"}},
    {ALONE("train", "a.yaml", "b.yaml"), .expect = {"a.yaml", "b.yaml", "one"}},
    {ALONE("train", "folder"), .expect = {"unexpected word 'folder'", "fb3-dist train [CONFIG.yaml]"}},
    {ALONE("train", "--quiet", "ture"), .expect = {"unexpected word 'ture'", "--quiet", "true or false"}},
    {ALONE("--bf16", "ture"), .expect = {"unexpected word 'ture'", "--bf16"}},
    {ALONE("init", "a", "b"), .expect = {"unexpected word 'b'", "fb3-dist init [DIR]"}},
    {ALONE("export"), .expect = {"export of what?", "CHECKPOINT|RUN_DIR"}},
    {ALONE("inspect"), .expect = {"inspect of what?"}},
    {ALONE("doctor", "c.yaml"), .expect = {"unexpected word 'c.yaml'"}},
    {ALONE("predict", "--learning_rate", "1"), .expect = {"--learning_rate", "train", "predict --help"}},
    {WORDS("--per_fold"), .expect = {"--per_fold", "predict", "train --help"}},
    {ALONE("nowhere.yaml"), .expect = {"nowhere.yaml", "No such file"}},
    {ALONE("train", "--seed"), .expect = {"--seed needs a value"}},
    {ALONE("train", "--seed", "--folds", "3"), .expect = {"--seed needs a value"}},
    /* wrong types */
    YAML("max_length: abc\n", "c.yaml:3: max_length: 'abc' is not a whole number"),
    YAML("max_length: 1e3\n", "c.yaml:3: max_length: '1e3' is not a whole number"),
    YAML("max_length: 512.0\n", "c.yaml:3: max_length"),
    YAML("max_length: 1_000\n", "c.yaml:3: max_length"),
    YAML("max_length: 0x200\n", "c.yaml:3: max_length"),
    YAML("max_length: [512]\n", "c.yaml:3: max_length: is a list"),
    YAML("max_length: {a: 1}\n", "c.yaml:3: max_length: is a map"),
    YAML("max_length:\n", "c.yaml:3: max_length: has no value"),
    YAML("seed: 99999999999999999999999\n", "c.yaml:3: seed", "out of range"),
    YAML("seed: ' 5'\n", "c.yaml:3: seed"),
    YAML("fold_groups: many\n", "c.yaml:3: fold_groups", "or auto"),
    YAML("learning_rate: fast\n", "c.yaml:3: learning_rate: 'fast' is not a number"),
    YAML("learning_rate: nan\n", "c.yaml:3: learning_rate"),
    YAML("learning_rate: .inf\n", "c.yaml:3: learning_rate"),
    YAML("learning_rate: inf\n", "c.yaml:3: learning_rate"),
    YAML("learning_rate: 0x1p-3\n", "c.yaml:3: learning_rate"),
    YAML("learning_rate: 1e-5 # per step, \n\nhead_dropout: 0,2\n", "c.yaml:5: head_dropout"),
    YAML("learning_rate: null\n", "c.yaml:3: learning_rate: has no value"),
    YAML("save_initial: maybe\n", "c.yaml:3: save_initial", "true or false"),
    YAML("bf16: half\n", "c.yaml:3: bf16", "auto, true or false"),
    YAML("loss_type: rsme\n", "c.yaml:3: loss_type: 'rsme'", "rmse, mse, l1, smooth_l1, mcrmse"),
    YAML("lr_scheduler_type: cosine_with_restarts\n", "c.yaml:3: lr_scheduler_type", "one of linear, cosine"),
    YAML("eval_strategy: epochs\n", "c.yaml:3: eval_strategy", "no, epoch, steps"),
    YAML("group_by_length: sequential\n", "c.yaml:3: group_by_length"),
    YAML("train_folds: first\n", "c.yaml:3: train_folds", "all or whole numbers"),
    YAML("train_folds: [0, [1]]\n", "c.yaml:3: train_folds", "nested"),
    YAML("train_folds: 0,\n", "c.yaml:3: train_folds", "empty item"),
    YAML("train_folds: 0.5\n", "c.yaml:3: train_folds"),
    YAML("label_columns: 'a,,b'\n", "c.yaml:3: label_columns", "empty item"),
    YAML("label_columns: [a, '']\n", "c.yaml:3: label_columns", "empty item"),
    YAML("label_columns: []\n", "c.yaml:3: label_columns", "no value"),
    YAML("label_columns: [a, b, a]\n", "c.yaml:3: label_columns", "'a' stands twice"),
    YAML("lr_scheduler_kwargs: 3\n", "c.yaml:3: lr_scheduler_kwargs", "map"),
    YAML("lr_scheduler_kwargs: [power, 3]\n", "c.yaml:3: lr_scheduler_kwargs: is a list"),
    YAML("lr_scheduler_kwargs: {powr: 3}\n", "c.yaml:3: lr_scheduler_kwargs", "'powr'", "power"),
    YAML("lr_scheduler_kwargs: {power: x}\n", "c.yaml:3: lr_scheduler_kwargs: 'x' is not a number"),
    YAML("lr_scheduler_kwargs: {power: 1, power: 2}\n", "c.yaml:3: lr_scheduler_kwargs", "power stands twice"),
    YAML("lr_scheduler_kwargs: {power: {a: 1}}\n", "c.yaml:3: lr_scheduler_kwargs", "nested"),
    {WORDS("--lr_scheduler_kwargs", "{\"power\": [1]}"), .expect = {"--lr_scheduler_kwargs"}},
    {WORDS("--lr_scheduler_kwargs", "{\"power\": 1"), .expect = {"--lr_scheduler_kwargs"}},
    {WORDS("--seed", "one"), .expect = {"--seed: 'one' is not a whole number"}},
    {WORDS("--save_initial=perhaps"), .expect = {"--save_initial: 'perhaps'"}},
    {WORDS("--train_file="), .expect = {"train_file is not set"}},
    {WORDS("--output_dir="), .expect = {"--output_dir: has no value"}},
    {WORDS("--train_file=\xff.csv"), .expect = {"--train_file", "not UTF-8"}},
    {WORDS("--run_name=\xc0\xaf"), .expect = {"--run_name", "not UTF-8"}},
    {WORDS("--run_name=\xed\xa0\x80"), .expect = {"--run_name", "not UTF-8"}},
    ENVIRONMENT("FB3_MAX_LENGTH", "long", "FB3_MAX_LENGTH: 'long' is not a whole number"),
    ENVIRONMENT("FB3_TOKENIZER_NAME", "\xfe", "FB3_TOKENIZER_NAME", "not UTF-8"),
    ENVIRONMENT("FB3_FP16", "1", "FB3_FP16", "use bf16"),
    {.variable = "FB3_CONFIG", .value = "nowhere.yaml", .words = {"train"}, .expect = {"nowhere.yaml", "No such file"}},
    /* out of range */
    YAML("max_length: 2\n", "c.yaml:3: max_length: '2' is out of range", "at least 3"),
    YAML("max_length: -512\n", "c.yaml:3: max_length", "out of range"),
    YAML("learning_rate: 1e5\n", "c.yaml:3: learning_rate: '1e5' is out of range"),
    YAML("learning_rate: -1e-5\n", "c.yaml:3: learning_rate", "out of range"),
    YAML("learning_rate: 1e-400\n", "c.yaml:3: learning_rate", "out of range"),
    YAML("adam_beta2: 1\n", "c.yaml:3: adam_beta2", "below 1"),
    YAML("adam_epsilon: 0\n", "c.yaml:3: adam_epsilon", "above 0"),
    YAML("head_dropout: 1.0\n", "c.yaml:3: head_dropout", "below 1"),
    YAML("warmup_ratio: 10\n", "c.yaml:3: warmup_ratio", "at most 1"),
    YAML("warmup_steps: 10.5\n", "c.yaml:3: warmup_steps", "share"),
    YAML("num_train_epochs: 0\n", "c.yaml:3: num_train_epochs", "above 0"),
    YAML("max_steps: -2\n", "c.yaml:3: max_steps", "at least -1"),
    YAML("folds: 0\n", "c.yaml:3: folds", "at least 1"),
    YAML("folds: 101\n", "c.yaml:3: folds", "at most 100"),
    YAML("seed: 4294967296\n", "c.yaml:3: seed"),
    YAML("seed: -1\n", "c.yaml:3: seed"),
    YAML("per_device_train_batch_size: 0\n", "c.yaml:3: per_device_train_batch_size"),
    YAML("gradient_accumulation_steps: 0\n", "c.yaml:3: gradient_accumulation_steps"),
    YAML("max_train_samples: 0\n", "c.yaml:3: max_train_samples"),
    YAML("smooth_l1_beta: 0\n", "c.yaml:3: smooth_l1_beta"),
    YAML("save_total_limit: 0\n", "c.yaml:3: save_total_limit"),
    YAML("early_stopping_patience: 0\n", "c.yaml:3: early_stopping_patience", "or off"),
    YAML("eval_strategy: steps\neval_steps: 0\n", "c.yaml:4: eval_steps"),
    YAML("ddp_timeout: 0\n", "c.yaml:3: ddp_timeout"),
    YAML("logging_steps: 0.1\n", "c.yaml:3: logging_steps"),
    YAML("reproducible_leaves: 0\n", "c.yaml:3: reproducible_leaves"),
    YAML("train_folds: 3\n", "c.yaml:3: train_folds", "no fold 3"),
    YAML("train_folds: [-1]\n", "c.yaml:3: train_folds", "out of range"),
    YAML("train_folds: [0, 0]\n", "c.yaml:3: train_folds", "twice"),
    /* keys that contradict each other */
    YAML("fp16: true\n", "c.yaml:3: fp16", "use bf16"),
    {WORDS("--fp16"), .expect = {"--fp16", "use bf16"}},
    YAML("device: cuda\nuse_cpu: true\n", "c.yaml:4: use_cpu", "device: cuda"),
    YAML("model_preset: tiny\ninit: random\n", "c.yaml:3: model_preset", "model_name_or_path"),
    YAML("init: random\n", "c.yaml:3: init", "model_preset"),
    YAML("init: xavier\n", "c.yaml:3: init", "random"),
    {ALONE("--train_file", "a", "--model_preset", "tiny", "--tokenizer", "t"), .expect = {"--model_preset", "init: random"}},
    {ALONE("--train_file", "a", "--model_preset", "deberta-v3-huge", "--init", "random"), .expect = {"--model_preset", "'deberta-v3-huge'"}},
    {ALONE("--train_file", "a", "--model_preset", "deberta-v3-bsae", "--init", "random"), .expect = {"did you mean deberta-v3-base?"}},
    YAML("folds_file: f.csv\nfold_column: fold\n", "c.yaml:3: folds_file", "fold_column"),
    YAML("validation_file: v.csv\nfolds_file: f.csv\n", "c.yaml:3: validation_file", "folds_file"),
    YAML("eval_steps: 100\n", "c.yaml:3: eval_steps", "eval_strategy: steps"),
    YAML("save_steps: 100\n", "c.yaml:3: save_steps", "save_strategy: steps"),
    YAML("eval_strategy: no\nearly_stopping_patience: 2\n", "c.yaml:4: early_stopping_patience"),
    YAML("folds: 1\nearly_stopping_patience: 2\n", "c.yaml:4: early_stopping_patience"),
    YAML("metric_for_best_model: f1\n", "c.yaml:3: metric_for_best_model: 'f1'", "eval_MCRMSE"),
    YAML("label_columns: [grammar]\nmetric_for_best_model: eval_COHESION_RMSE\n", "c.yaml:4: metric_for_best_model"),
    YAML("label_columns: [text_id, grammar]\n", "c.yaml:3: label_columns", "'text_id'"),
    YAML("id_column: full_text\n", "c.yaml:3: id_column", "text_column"),
    YAML("lr_scheduler_kwargs: {power: 2}\n", "c.yaml:3: lr_scheduler_kwargs", "power"),
    YAML("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {lr_end: 0}\n", "c.yaml:4: lr_scheduler_kwargs"),
    YAML("report_to: mlflow\n", "c.yaml:3: report_to", "'mlflow'"),
    YAML("report_to: [none, wandb]\n", "c.yaml:3: report_to", "contradict"),
    {ALONE("predict", "--clip_predictions", "5,1"), .expect = {"--clip_predictions: '5,1'"}},
    {ALONE("predict", "--clip_predictions", "1"), .expect = {"--clip_predictions: '1'"}},
    {ALONE("predict", "--clip_predictions", "1,2,3"), .expect = {"--clip_predictions"}},
    {ALONE("export", "x", "--dtype", "int8"), .expect = {"--dtype: 'int8'", "float32, float16, bfloat16"}},
    {ALONE("export", "x", "--format", "onnx"), .expect = {"--format: 'onnx'", "hf, torch"}},
    /* what a verb cannot do without */
    {ALONE("train", "--seed", "1"), .expect = {"train_file is not set"}},
    {ALONE("train", "--train_file", "a.csv"), .expect = {"no model", "model_name_or_path"}},
    {ALONE("train", "--train_file", "a.csv", "--model_preset", "tiny", "--init", "random"), .expect = {"no tokenizer"}},
    {ALONE("prepare", "--train_file", "a.csv"), .expect = {"no tokenizer"}},
    {ALONE("folds", "--seed", "1"), .expect = {"train_file is not set"}},
    {ALONE(NULL), .expect = {"there is no fb3.yaml here", "fb3-dist init"}},
    {ALONE("train"), .expect = {"there is no fb3.yaml here", "fb3-dist init"}},
    /* YAML that is not one */
    YAML("seed: 1\nfolds: 2\nseed: 3\n", "c.yaml:5: seed is given a second time", "line 3"),
    YAML("tokenizer: a\ntokenizer_name: b\n", "c.yaml:4: tokenizer", "line 3"),
    YAML("seed: [1, 2\n", "c.yaml:3", "not valid YAML"),
    YAML("seed: \"1\n", "c.yaml:3", "not valid YAML"),
    YAML("seed = 1\n", "c.yaml:"),
    YAML("\tseed: 1\n", "c.yaml:3", "not valid YAML"),
    YAML("- seed\n", "c.yaml:3", "not valid YAML"),
    YAML("seed: &a 1\n", "c.yaml:3", "anchors"),
    YAML("seed: *a\n", "c.yaml:3", "aliases"),
    YAML("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "c.yaml:3", "anchors"),
    YAML("seed: !!int 1\n", "c.yaml:3", "tags"),
    YAML("seed: !!python/object/apply:os.system [x]\n", "c.yaml:3", "tags"),
    YAML("[a, b]: 1\n", "c.yaml:3", "key"),
    YAML("{a: 1}: 1\n", "c.yaml:3", "key"),
    YAML("seed: [[[[[[1]]]]]]\n", "c.yaml:3: seed", "nested"),
    YAML("seed: 1\n---\nseed: 2\n", "c.yaml:4", "second document"),
    YAML("run_name: caf\xe9\n", "c.yaml:3", "not valid YAML", "UTF-8"),
    YAML("run_name: \"a\\0b\"\n", "c.yaml:3: run_name", "zero byte"),
    YAML("run_name: a\x01z\n", "c.yaml:3", "not valid YAML"),
    YAML("train_folds: ${NO_SUCH_VARIABLE_HERE}\n", "c.yaml:3: train_folds", "NO_SUCH_VARIABLE_HERE is not set"),
    YAML("run_name: '${HOME'\n", "c.yaml:3: run_name", "closing brace"),
    YAML("run_name: '${}'\n", "c.yaml:3: run_name", "not a variable"),
    YAML("run_name: '${1X}'\n", "c.yaml:3: run_name", "not a variable"),
    YAML("run_name: '${A-b}'\n", "c.yaml:3: run_name", "not a variable"),
    YAML("run_name: '$(date) ${A B}'\n", "c.yaml:3: run_name", "not a variable"),
};
/* clang-format on */

/* What is wrong with the answer to a case, or NULL. */
static const char *complaint(const bad_case *c, fb3_status status)
{
    const char *message = fb3_error_text();
    if (status != FB3_INPUT) return "not refused as input";
    if (!*message || strlen(message) > LONGEST_MESSAGE || strpbrk(message, "\n\r")) return "not one bearable line";
    for (int e = 0; e < MOST_EXPECTED && c->expect[e]; e++)
        if (!strstr(message, c->expect[e])) return c->expect[e];
    return NULL;
}

static const char *run_case(const bad_case *c)
{
    const char *words[MOST_WORDS + 1] = {NULL};
    char text[1000];
    memcpy(words, c->words, sizeof c->words);
    snprintf(text, sizeof text, "train_file: a.csv\nmodel_name_or_path: m\n%s", c->yaml ? c->yaml : "");
    if (c->yaml) scratch_write("c.yaml", text);
    if (c->variable) setenv(c->variable, c->value, 1);
    fb3_config config;
    const char *wrong = complaint(c, scratch_parse(&config, words));
    fb3_config_free(&config);
    fb3_config_free(&config); /* twice does no harm */
    if (c->variable) unsetenv(c->variable);
    unlink("c.yaml");
    return wrong;
}

static void each_is_refused_in_one_line(void **state)
{
    (void)state;
    enum { CASE_COUNT = sizeof CASES / sizeof *CASES, PROMISED = 60 };
    int failures = 0;
    for (int i = 0; i < CASE_COUNT; i++) {
        const char *wrong = run_case(&CASES[i]);
        if (!wrong) continue;
        failures++;
        print_error("case %d (%s): \"%s\" is missing or wrong: %s\n", i, CASES[i].yaml ? CASES[i].yaml : "no file",
                    wrong, fb3_error_text());
    }
    assert_int_equal(failures, 0);
    assert_true(CASE_COUNT >= PROMISED);
}

static void expect_refusal(const char *what)
{
    fb3_config config;
    assert_int_equal(PARSE(&config, "c.yaml"), FB3_INPUT);
    if (!strstr(fb3_error_text(), what)) fail_msg("%s", fb3_error_text());
    fb3_config_free(&config);
}

/* A file of `count` repetitions between a head and a tail. */
static void write_repeated(const char *head, const char *piece, size_t count, const char *tail)
{
    size_t length = strlen(piece);
    char *text = malloc(strlen(head) + length * count + strlen(tail) + 1);
    char *end = stpcpy(text, head);
    for (size_t i = 0; i < count; i++) end = stpcpy(end, piece);
    strcpy(end, tail);
    scratch_write("c.yaml", text);
    free(text);
}

static void large_and_deep_files_are_refused_quickly(void **state)
{
    (void)state;
    enum { MANY = 100000, MILLION = 1000000 };
    write_repeated("", "# a comment line\n", MANY, "");
    expect_refusal("c.yaml has 1700000 bytes");
    write_repeated("seed: ", "[", MILLION, "");
    expect_refusal("c.yaml:1: seed");
    write_repeated("seed: ", "{a: ", MANY, "");
    expect_refusal("c.yaml:1: seed");
    write_repeated("", "- ", MANY, "1\n");
    expect_refusal("c.yaml:1");
    write_repeated("label_columns: [", "a, ", MANY, "a]\n");
    expect_refusal("c.yaml:1: label_columns: more than");
    write_repeated("", "a", MANY, ": 1\n");
    expect_refusal("c.yaml:1");
    write_repeated("seed: ", "9", MANY, "\n");
    expect_refusal("c.yaml:1: seed");
    unlink("c.yaml");
}

/* Every cut and every flipped bit of a good file is read or refused, but never crashes. */
static void mangled_files_are_read_or_refused(void **state)
{
    (void)state;
    char *good = fb3_config_template();
    fb3_config config;
    expect_refusal("c.yaml");
    size_t length = strlen(good);
    for (size_t cut = 0; cut < length; cut += 37) {
        char kept = good[cut];
        good[cut] = 0;
        fb3_status status = fb3_config_load_text(&config, good, "c.yaml");
        assert_true(status == FB3_OK || status == FB3_INPUT);
        fb3_config_free(&config);
        good[cut] = kept;
    }
    for (size_t bit = 0; bit < 8 * length; bit += 61) {
        good[bit / 8] ^= (char)(1 << bit % 8);
        fb3_status status = fb3_config_load_text(&config, good, "c.yaml");
        assert_true(status == FB3_OK || status == FB3_INPUT);
        fb3_config_free(&config);
        good[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_refused_in_one_line),
        cmocka_unit_test(large_and_deep_files_are_refused_quickly),
        cmocka_unit_test(mangled_files_are_read_or_refused),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
