/* Finding a Hugging Face directory, reading its config.json and its weights.
 *
 * The cache's layout is huggingface_hub's: models--org--name/refs/<revision> holds a commit id, and
 * models--org--name/snapshots/<commit>/ the files. */
#include "fb3/file.h"
#include "hf_names.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONFIG_MAX = 1 << 20,
    TOKENIZER_CONFIG_MAX = 8 << 20, /* some list thousands of added tokens */
    REF_MAX = 256,
    LENGTH_MAX = 1 << 20, /* "no limit" is written as 1e30 */
    TARGETS_MAX = 4096,
};

static const char SAFETENSORS[] = "model.safetensors";
static const char TORCH_BIN[] = "pytorch_model.bin";

static const char out_of_memory[] = "out of memory for a path; free memory and run again";

/* --- finding ------------------------------------------------------------------------------------------------------ */

/* "name" or "org/name", of the characters that the hub allows; not a path. */
static bool is_hub_name(const char *name)
{
    int slashes = 0;
    if (!isalnum((unsigned char)name[0])) return false;
    for (const char *c = name; *c; c++) {
        slashes += *c == '/';
        if (!isalnum((unsigned char)*c) && !strchr("/-_.", *c)) return false;
    }
    return slashes <= 1 && !strstr(name, "..") && name[strlen(name) - 1] != '/';
}

/* A branch, a tag or "refs/pr/1": a relative path that stays below its folder. */
static bool is_revision(const char *revision)
{
    return revision[0] && revision[0] != '/' && !strstr(revision, "..");
}

/* `folder`/models--org--name, or NULL when out of memory. */
static char *model_folder(const char *cache, const char *name)
{
    const char *slash = strchr(name, '/');
    if (!slash) return fb3_format("%s/models--%s", cache, name);
    return fb3_format("%s/models--%.*s--%s", cache, (int)(slash - name), name, slash + 1);
}

/* What refs/<revision> says, else the revision itself (a commit id). Caller frees *commit. */
static fb3_status resolve_revision(const char *model, const char *revision, char **commit)
{
    char *ref = fb3_format("%s/refs/%s", model, revision);
    size_t bytes = 0;
    *commit = NULL;
    FB3_REQUIRE(ref, FB3_FAILED, out_of_memory);
    fb3_status status = FB3_OK;
    if (fb3_file_exists(ref)) {
        status = fb3_file_read(ref, REF_MAX, commit, &bytes);
        if (status == FB3_OK) (*commit)[strcspn(*commit, " \r\n")] = 0;
    } else {
        *commit = strdup(revision);
        if (!*commit) status = fb3_fail(FB3_FAILED, out_of_memory);
    }
    if (status == FB3_OK && !is_revision(*commit)) {
        status = fb3_fail(FB3_INPUT, "%s does not hold a commit id; fetch the model again", ref);
        free(*commit);
        *commit = NULL;
    }
    free(ref);
    return status;
}

/* The snapshot of the model in one cache; *directory stays NULL when it is not there. */
static fb3_status find_snapshot(const char *cache, const char *name, const char *revision, char **directory)
{
    fb3_status status = FB3_OK;
    char *commit = NULL, *snapshot = NULL, *model = model_folder(cache, name);
    FB3_REQUIRE_GOTO(model, done, FB3_FAILED, out_of_memory);
    if (!fb3_folder_exists(model)) goto done;
    FB3_TRY_GOTO(resolve_revision(model, revision, &commit), done);
    snapshot = fb3_format("%s/snapshots/%s", model, commit);
    FB3_REQUIRE_GOTO(snapshot, done, FB3_FAILED, out_of_memory);
    if (fb3_folder_exists(snapshot)) {
        *directory = snapshot;
        snapshot = NULL;
    }
done:
    free(model);
    free(commit);
    free(snapshot);
    return status;
}

/* Where caches may be: an environment variable and the folder below it. */
typedef struct cache_place {
    const char *variable, *below;
} cache_place;

static const cache_place cache_places[] = {
    {"HF_HUB_CACHE", ""},
    {"HF_HOME", "/hub"},
    {"HOME", "/.cache/huggingface/hub"},
};

static fb3_status find_in_caches(const char *name, const char *revision, char **directory)
{
    for (size_t i = 0; i < sizeof cache_places / sizeof cache_places[0] && !*directory; i++) {
        const char *root = getenv(cache_places[i].variable);
        if (!root || !root[0]) continue;
        char *cache = fb3_format("%s%s", root, cache_places[i].below);
        FB3_REQUIRE(cache, FB3_FAILED, out_of_memory);
        fb3_status status = find_snapshot(cache, name, revision, directory);
        free(cache);
        FB3_TRY(status);
    }
    return FB3_OK;
}

fb3_status fb3_hf_find(const char *name_or_path, const char *revision, char **directory)
{
    *directory = NULL;
    if (!revision) revision = "main";
    if (fb3_folder_exists(name_or_path)) {
        *directory = strdup(name_or_path);
        FB3_REQUIRE(*directory, FB3_FAILED, out_of_memory);
        return FB3_OK;
    }
    FB3_REQUIRE(!fb3_file_exists(name_or_path), FB3_INPUT,
                "%s is a file; give the directory with config.json and the weights", name_or_path);
    FB3_REQUIRE(is_hub_name(name_or_path), FB3_INPUT,
                "there is no directory %s; give one with config.json and the weights, or a name such as "
                "microsoft/deberta-v3-base",
                name_or_path);
    FB3_REQUIRE(is_revision(revision), FB3_INPUT, "'%s' is not a revision; give a branch, a tag or a commit id",
                revision);
    FB3_TRY(find_in_caches(name_or_path, revision, directory));
    bool is_main = strcmp(revision, "main") == 0;
    FB3_REQUIRE(*directory, FB3_INPUT,
                "%s is neither a directory nor in the Hugging Face cache; on a machine with internet and this home "
                "directory run: tools/fetch-model %s%s%s",
                name_or_path, name_or_path, is_main ? "" : " --revision ", is_main ? "" : revision);
    return FB3_OK;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static fb3_status open_weights(const char *path, fb3_tensor_file **file)
{
    const char *slash = strrchr(path, '/');
    bool is_torch = strcmp(slash ? slash + 1 : path, TORCH_BIN) == 0;
    return is_torch ? fb3_torch_zip_open(file, path) : fb3_safetensors_open(file, path);
}

/* directory/name when that is a file, else NULL. */
static fb3_status path_if_there(const char *directory, const char *name, char **path)
{
    *path = fb3_path_join(directory, name);
    FB3_REQUIRE(*path, FB3_FAILED, out_of_memory);
    if (fb3_file_exists(*path)) return FB3_OK;
    free(*path);
    *path = NULL;
    return FB3_OK;
}

static fb3_status find_weights(fb3_hf_dir *hf)
{
    static const char *const sharded[] = {"model.safetensors.index.json", "pytorch_model.bin.index.json"};
    FB3_TRY(path_if_there(hf->directory, SAFETENSORS, &hf->weights_path));
    if (!hf->weights_path) FB3_TRY(path_if_there(hf->directory, TORCH_BIN, &hf->weights_path));
    for (size_t i = 0; i < sizeof sharded / sizeof sharded[0] && !hf->weights_path; i++) {
        char *index = NULL;
        FB3_TRY(path_if_there(hf->directory, sharded[i], &index));
        bool there = index != NULL;
        free(index);
        FB3_REQUIRE(!there, FB3_INPUT,
                    "%s has its weights in several files (%s), which are not read; save them as one with "
                    "save_pretrained(..., max_shard_size=\"100GB\")",
                    hf->directory, sharded[i]);
    }
    FB3_REQUIRE(hf->weights_path, FB3_INPUT, "%s has neither %s nor %s; fetch the model again", hf->directory,
                SAFETENSORS, TORCH_BIN);
    return FB3_OK;
}

/* id2label as a JSON array in the order of the ids; NULL unless it names exactly the targets. transformers fills in
 * LABEL_0, LABEL_1, ... where nobody gave names; those are no names. */
static fb3_status read_labels(fb3_hf_dir *hf, const json_t *config)
{
    const json_t *names = json_object_get(config, "id2label");
    if (hf->targets == 0 || json_object_size(names) != (size_t)hf->targets) return FB3_OK;
    fb3_status status = FB3_OK;
    json_t *array = json_array();
    FB3_REQUIRE(array, FB3_FAILED, "out of memory for the label names");
    for (int i = 0; i < hf->targets; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        json_t *name = json_object_get(names, id);
        if (!json_is_string(name) || strncmp(json_string_value(name), "LABEL_", strlen("LABEL_")) == 0) goto done;
        FB3_REQUIRE_GOTO(json_array_append(array, name) == 0, done, FB3_FAILED, "out of memory for the label names");
    }
    hf->label_names = json_dumps(array, JSON_COMPACT);
    if (!hf->label_names) status = fb3_fail(FB3_FAILED, "out of memory for the label names");
done:
    json_decref(array);
    return status;
}

/* A JSON object from a file of the directory; `flags` are jansson's. Caller frees *root. */
static fb3_status read_object(const char *path, size_t limit, size_t flags, json_t **root)
{
    char *text = NULL, shown[FB3_SHOWN_BYTES];
    size_t bytes = 0;
    json_error_t error;
    *root = NULL;
    FB3_TRY(fb3_file_read(path, limit, &text, &bytes));
    *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | flags, &error);
    free(text);
    FB3_REQUIRE(*root, FB3_INPUT, "%s:%d: not JSON: %s", path, error.line,
                fb3_shown(shown, error.text, sizeof error.text));
    if (json_is_object(*root)) return FB3_OK;
    json_decref(*root);
    *root = NULL;
    return fb3_fail(FB3_INPUT, "%s: not a JSON object", path);
}

static fb3_status read_max_length(fb3_hf_dir *hf)
{
    char *path = NULL;
    json_t *root = NULL;
    FB3_TRY(path_if_there(hf->directory, "tokenizer_config.json", &path));
    if (!path) return FB3_OK;
    /* "no limit" is written as 1e30 without an exponent, which is no integer to C */
    fb3_status status = read_object(path, TOKENIZER_CONFIG_MAX, JSON_DECODE_INT_AS_REAL, &root);
    double length = json_number_value(json_object_get(root, "model_max_length"));
    if (length >= 1 && length <= LENGTH_MAX) hf->max_length = (int)length;
    json_decref(root);
    free(path);
    return status;
}

static fb3_status read_config(fb3_hf_dir *hf, json_t **config)
{
    char *text = NULL, *path = fb3_path_join(hf->directory, "config.json");
    size_t bytes = 0;
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(path, done, FB3_FAILED, out_of_memory);
    FB3_TRY_GOTO(fb3_file_read(path, CONFIG_MAX, &text, &bytes), done);
    FB3_TRY_GOTO(fb3_model_config_parse(&hf->model, text, bytes, path), done);
    FB3_TRY_GOTO(read_object(path, CONFIG_MAX, 0, config), done);
done:
    free(path);
    free(text);
    return status;
}

/* The file has all of the model's parameters in their shapes. */
static fb3_status check_weights(const fb3_hf_dir *hf, const fb3_tensor_file *file)
{
    fb3_param_table *table = NULL;
    const fb3_tensor **source = NULL;
    fb3_status status = FB3_OK;
    int targets = hf->targets > 0 ? hf->targets : 1; /* without a head any number fits */
    FB3_TRY(fb3_param_table_create(&table, &hf->model, 1, targets));
    source = calloc((size_t)table->count, sizeof(fb3_tensor *));
    FB3_REQUIRE_GOTO(source, done, FB3_FAILED, "out of memory to check %s", hf->weights_path);
    FB3_TRY_GOTO(fb3_hf_match(file, table, source), done);
done:
    free(source);
    fb3_param_table_free(table);
    return status;
}

static fb3_status read_head(fb3_hf_dir *hf, const fb3_tensor_file *file)
{
    const fb3_tensor *weight = fb3_hf_find_parameter(file, "fc.weight");
    hf->has_head = weight != NULL;
    if (!weight) return FB3_OK;
    FB3_REQUIRE(weight->dims == 2 && weight->shape[0] >= 1 && weight->shape[0] <= TARGETS_MAX, FB3_INPUT,
                "%s: fc.weight is not the weight of a head of 1 to %d targets", hf->weights_path, TARGETS_MAX);
    hf->targets = (int)weight->shape[0];
    return FB3_OK;
}

fb3_status fb3_hf_open(fb3_hf_dir **out, const char *directory)
{
    *out = NULL;
    fb3_status status = FB3_OK;
    json_t *config = NULL;
    fb3_tensor_file *file = NULL;
    FB3_REQUIRE(fb3_folder_exists(directory), FB3_INPUT,
                "there is no directory %s; give one with config.json and the weights", directory);
    fb3_hf_dir *hf = calloc(1, sizeof *hf);
    FB3_REQUIRE(hf, FB3_FAILED, "out of memory to open %s", directory);
    hf->directory = strdup(directory);
    FB3_REQUIRE_GOTO(hf->directory, done, FB3_FAILED, out_of_memory);
    FB3_TRY_GOTO(read_config(hf, &config), done);
    FB3_TRY_GOTO(find_weights(hf), done);
    FB3_TRY_GOTO(open_weights(hf->weights_path, &file), done);
    FB3_TRY_GOTO(read_head(hf, file), done);
    FB3_TRY_GOTO(check_weights(hf, file), done);
    FB3_TRY_GOTO(read_labels(hf, config), done);
    FB3_TRY_GOTO(read_max_length(hf), done);
    *out = hf;
    hf = NULL;
done:
    fb3_tensor_file_close(file);
    json_decref(config);
    fb3_hf_close(hf);
    return status;
}

void fb3_hf_close(fb3_hf_dir *hf)
{
    if (!hf) return;
    free(hf->directory);
    free(hf->weights_path);
    free(hf->label_names);
    free(hf);
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

static fb3_status read_parameters(const fb3_tensor_file *file, const fb3_param_table *table,
                                  const fb3_tensor *const *source, fb3_weights *weights)
{
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        float *to = param->kind == FB3_PARAM_WORD ? weights->word_full : weights->arena + param->offset;
        if (source[i]) FB3_TRY(fb3_tensor_read(file, source[i], 0, source[i]->elements, to));
    }
    return FB3_OK;
}

fb3_status fb3_hf_load_weights(const fb3_hf_dir *hf, const fb3_param_table *table, fb3_weights *weights, bool *has_head)
{
    fb3_tensor_file *file = NULL;
    const fb3_tensor **source = calloc((size_t)table->count, sizeof(fb3_tensor *));
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(source, done, FB3_FAILED, "out of memory to read %s", hf->weights_path);
    FB3_TRY_GOTO(open_weights(hf->weights_path, &file), done);
    FB3_TRY_GOTO(fb3_hf_match(file, table, source), done);
    FB3_TRY_GOTO(fb3_tensor_file_verify(file), done);
    FB3_TRY_GOTO(read_parameters(file, table, source, weights), done);
    *has_head = source[fb3_param_find(table, FB3_PARAM_HEAD_WEIGHT, -1) - table->param] != NULL;
done:
    free(source);
    fb3_tensor_file_close(file);
    return status;
}

fb3_status fb3_hf_weights_sha256(const fb3_hf_dir *hf, char hex[FB3_SHA256_HEX])
{
    return fb3_sha256_file(hf->weights_path, hex);
}
