/* Writing a Hugging Face directory: config.json, weights, tokenizer.
 *
 * Everything is written into <directory>.export.tmp, which is then renamed, so that the directory appears whole or not
 * at all. The tokenizer is declared as PreTrainedTokenizerFast, which takes tokenizer.json as it is; transformers 5
 * would make a DebertaV2Tokenizer from spm.model without its normaliser. */
#include "export_weights.h"
#include "fb3/file.h"
#include "fb3/tokenizer.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDER_MODE = 0777, JSON_FORMAT = JSON_INDENT(2) | JSON_REAL_PRECISION(9) };

static const char CONFIG[] = "config.json";
static const char SPM[] = "spm.model";
static const char TOKENIZER[] = "tokenizer.json";
static const char TOKENIZER_CONFIG[] = "tokenizer_config.json";
static const char SPECIAL_TOKENS[] = "special_tokens_map.json";
static const char ADDED_TOKENS[] = "added_tokens.json";
static const char SAFETENSORS[] = "model.safetensors";
static const char TORCH_BIN[] = "pytorch_model.bin";

static const char *const export_files[] = {CONFIG,         SPM,          TOKENIZER,   TOKENIZER_CONFIG,
                                           SPECIAL_TOKENS, ADDED_TOKENS, SAFETENSORS, TORCH_BIN};

/* torch's name of the type, by fb3_export_dtype. */
static const char *const torch_dtypes[] = {
    [FB3_EXPORT_FLOAT32] = "float32",
    [FB3_EXPORT_FLOAT16] = "float16",
    [FB3_EXPORT_BFLOAT16] = "bfloat16",
};

/* What transformers calls the special tokens. */
typedef struct special_role {
    const char *role, *token;
} special_role;

static const special_role special_roles[] = {
    {"bos_token", "[CLS]"}, {"cls_token", "[CLS]"}, {"eos_token", "[SEP]"}, {"mask_token", "[MASK]"},
    {"pad_token", "[PAD]"}, {"sep_token", "[SEP]"}, {"unk_token", "[UNK]"},
};

/* --- JSON files --------------------------------------------------------------------------------------------------- */

static fb3_status write_text(const char *folder, const char *name, const void *text, size_t bytes)
{
    char *path = fb3_path_join(folder, name);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory to write %s", name);
    fb3_status status = fb3_file_write(path, text, bytes);
    free(path);
    return status;
}

/* Takes over `root`; NULL: it could not be made. */
static fb3_status write_json(const char *folder, const char *name, json_t *root)
{
    char *json = root ? json_dumps(root, JSON_FORMAT) : NULL, *text = json ? fb3_format("%s\n", json) : NULL;
    json_decref(root);
    free(json);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory to write %s", name);
    fb3_status status = write_text(folder, name, text, strlen(text));
    free(text);
    return status;
}

/* id2label and label2id from the JSON array of names. */
static fb3_status add_labels(json_t *config, const fb3_export *export)
{
    if (!export->label_names) return FB3_OK;
    json_t *names = json_loads(export->label_names, 0, NULL), *by_id = json_object(), *by_name = json_object(), *name;
    size_t i;
    bool made = json_array_size(names) == (size_t) export->table->targets;
    json_array_foreach(names, i, name)
    {
        char id[32];
        snprintf(id, sizeof id, "%zu", i);
        made = made && json_is_string(name) && json_object_set(by_id, id, name) == 0 &&
               json_object_set_new(by_name, json_string_value(name), json_integer((json_int_t)i)) == 0;
    }
    made = made && json_object_set(config, "id2label", by_id) == 0 && json_object_set(config, "label2id", by_name) == 0;
    json_decref(names);
    json_decref(by_id);
    json_decref(by_name);
    FB3_REQUIRE(made, FB3_FAILED, "the label names %s are not a list of %d texts; check label_columns",
                export->label_names, export->table->targets);
    return FB3_OK;
}

static fb3_status write_config(const fb3_export *export, const char *folder)
{
    char *text = fb3_model_config_json(&export->table->model);
    json_t *config = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    FB3_REQUIRE(config, FB3_FAILED, "out of memory to write %s", CONFIG);
    fb3_status status = add_labels(config, export);
    bool made = json_object_set_new(config, "torch_dtype", json_string(torch_dtypes[export->dtype])) == 0 &&
                json_object_set_new(config, "problem_type", json_string("regression")) == 0;
    if (status == FB3_OK && !made) status = fb3_fail(FB3_FAILED, "out of memory to write %s", CONFIG);
    if (status == FB3_OK) return write_json(folder, CONFIG, config);
    json_decref(config);
    return status;
}

/* --- the tokenizer ------------------------------------------------------------------------------------------------ */

static json_t *special_tokens_map(void)
{
    json_t *map = json_object();
    for (size_t i = 0; i < sizeof special_roles / sizeof special_roles[0]; i++)
        if (json_object_set_new(map, special_roles[i].role, json_string(special_roles[i].token)) != 0) {
            json_decref(map);
            return NULL;
        }
    return map;
}

/* {"0": {"content": "[PAD]", ...}, ...} from the added_tokens of tokenizer.json */
static json_t *added_tokens_decoder(const json_t *tokenizer)
{
    json_t *decoder = json_object(), *token;
    size_t i;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, token)
    {
        char id[32];
        json_t *copy = json_copy(token);
        snprintf(id, sizeof id, "%lld", (long long)json_integer_value(json_object_get(token, "id")));
        json_object_del(copy, "id");
        if (json_object_set_new(decoder, id, copy) != 0) {
            json_decref(decoder);
            return NULL;
        }
    }
    return decoder;
}

static json_t *tokenizer_config(const fb3_export *export, const json_t *tokenizer)
{
    json_t *config = special_tokens_map(), *more;
    more = json_pack("{s:o, s:b, s:b, s:i, s:b, s:s, s:[s, s]}", "added_tokens_decoder",
                     added_tokens_decoder(tokenizer), "clean_up_tokenization_spaces", 0, "do_lower_case", 0,
                     "model_max_length", export->max_length, "split_by_punct", 0, "tokenizer_class",
                     "PreTrainedTokenizerFast", "model_input_names", "input_ids", "attention_mask");
    bool made = json_object_update(config, more) == 0;
    json_decref(more);
    if (made) return config;
    json_decref(config);
    return NULL;
}

/* {"[MASK]": 128000}: the tokens that spm.model itself does not have */
static json_t *added_tokens(const json_t *tokenizer)
{
    json_t *added = json_object(), *token;
    json_int_t pieces = (json_int_t)json_array_size(json_object_get(json_object_get(tokenizer, "model"), "vocab"));
    size_t i;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, token)
    {
        json_t *id = json_object_get(token, "id");
        const char *content = json_string_value(json_object_get(token, "content"));
        bool in_model = json_integer_value(id) < pieces;
        if (in_model || !content || json_object_set(added, content, id) == 0) continue;
        json_decref(added);
        return NULL;
    }
    return added;
}

static fb3_status write_tokenizer_files(const fb3_export *export, const char *folder, const char *text, size_t bytes)
{
    FB3_TRY(write_text(folder, SPM, export->spm, export->spm_bytes));
    FB3_TRY(write_text(folder, TOKENIZER, text, bytes));
    json_t *tokenizer = json_loadb(text, bytes, 0, NULL);
    FB3_REQUIRE(tokenizer, FB3_FAILED, "out of memory to write %s", TOKENIZER_CONFIG);
    fb3_status status = write_json(folder, TOKENIZER_CONFIG, tokenizer_config(export, tokenizer));
    if (status == FB3_OK) status = write_json(folder, ADDED_TOKENS, added_tokens(tokenizer));
    if (status == FB3_OK) status = write_json(folder, SPECIAL_TOKENS, special_tokens_map());
    json_decref(tokenizer);
    return status;
}

static fb3_status write_tokenizer(const fb3_export *export, const char *folder)
{
    fb3_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t bytes = 0;
    FB3_TRY(fb3_tokenizer_open_memory(&tokenizer, export->spm, export->spm_bytes));
    fb3_status status = fb3_tokenizer_json(tokenizer, &text, &bytes);
    fb3_tokenizer_close(tokenizer);
    if (status == FB3_OK) status = write_tokenizer_files(export, folder, text, bytes);
    free(text);
    return status;
}

/* --- the directory ------------------------------------------------------------------------------------------------ */

/* "." and "..", which every directory has. */
static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static fb3_status require_new_or_empty(const char *directory)
{
    DIR *folder = opendir(directory);
    if (!folder) {
        FB3_REQUIRE(errno == ENOENT, FB3_INPUT, "cannot export to %s: %s; give a new directory", directory,
                    strerror(errno));
        return FB3_OK;
    }
    const struct dirent *entry;
    bool empty = true;
    while ((entry = readdir(folder))) empty = empty && is_dots(entry->d_name);
    closedir(folder);
    FB3_REQUIRE(empty, FB3_INPUT, "%s exists and is not empty; give a new directory", directory);
    return FB3_OK;
}

/* Ours by name, or a temporary of it. */
static bool is_export_file(const char *name)
{
    for (size_t i = 0; i < sizeof export_files / sizeof export_files[0]; i++)
        if (strncmp(name, export_files[i], strlen(export_files[i])) == 0) return true;
    return false;
}

/* Removes what an export, this one or a killed one, has left in its temporary directory; other files stay. */
static void remove_temporary(const char *temporary)
{
    DIR *folder = opendir(temporary);
    if (!folder) return;
    const struct dirent *entry;
    while ((entry = readdir(folder)))
        if (is_export_file(entry->d_name)) (void)unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    (void)rmdir(temporary);
}

static fb3_status make_parent(const char *directory)
{
    const char *slash = strrchr(directory, '/');
    if (!slash || slash == directory) return FB3_OK;
    char *parent = strndup(directory, (size_t)(slash - directory));
    FB3_REQUIRE(parent, FB3_FAILED, "out of memory to export to %s", directory);
    fb3_status status = fb3_folder_make(parent);
    free(parent);
    return status;
}

typedef fb3_status (*weights_writer)(const fb3_export *export, const char *path);

static fb3_status write_files(const fb3_export *export, const char *folder, const char *weights_name,
                              weights_writer write_weights)
{
    FB3_TRY(write_config(export, folder));
    FB3_TRY(write_tokenizer(export, folder));
    char *path = fb3_path_join(folder, weights_name);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory to write %s", weights_name);
    fb3_status status = write_weights(export, path);
    free(path);
    return status;
}

/* `directory` without a slash at its end. */
static fb3_status export_to(const fb3_export *export, const char *directory, const char *weights_name,
                            weights_writer write_weights)
{
    FB3_TRY(require_new_or_empty(directory));
    FB3_TRY(make_parent(directory));
    char *temporary = fb3_format("%s.export.tmp", directory);
    FB3_REQUIRE(temporary, FB3_FAILED, "out of memory to export to %s", directory);
    remove_temporary(temporary);
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(mkdir(temporary, FOLDER_MODE) == 0, done, FB3_INPUT,
                     "cannot make the directory %s: %s; check the path, or remove it", temporary, strerror(errno));
    status = write_files(export, temporary, weights_name, write_weights);
    if (status == FB3_OK) status = fb3_file_publish(temporary, directory);
    if (status != FB3_OK) remove_temporary(temporary);
done:
    free(temporary);
    return status;
}

static fb3_status export_directory(const fb3_export *export, const char *directory, const char *weights_name,
                                   weights_writer write_weights)
{
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/') length--;
    char *trimmed = strndup(directory, length);
    FB3_REQUIRE(trimmed, FB3_FAILED, "out of memory to export to %s", directory);
    fb3_status status = export_to(export, trimmed, weights_name, write_weights);
    free(trimmed);
    return status;
}

fb3_status fb3_export_hf(const fb3_export *export, const char *directory)
{
    return export_directory(export, directory, SAFETENSORS, fb3_safetensors_write);
}

fb3_status fb3_export_torch(const fb3_export *export, const char *directory)
{
    return export_directory(export, directory, TORCH_BIN, fb3_torch_zip_write);
}
