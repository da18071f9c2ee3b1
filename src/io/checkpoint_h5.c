/* Writing and reading checkpoints (the layout is in fb3/checkpoint.h). Arrays go between the arenas and the file one
 * parameter at a time, so that no second copy of a model is ever in memory. checkpoint_hash.c puts a finished file into
 * its place, checkpoint_aside.c does so beside other work. */
#include "fb3/checkpoint.h"
#include "checkpoint_aside.h"
#include "checkpoint_hash.h"
#include "checkpoint_state.h"
#include "fb3/file.h"
#include "fb3/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FORMAT_VERSION = 1,
    PIECE_BYTES = 1 << 20, /* what is written between two looks at who waits: a chunk of the file */
    CONFIG_TEXT_MAX = 1 << 20,
    TOKENIZER_MAX = 256 << 20,
    TARGETS_MAX = 4096,
};

static const char COMPLETE[] = "complete"; /* the last attribute that is written */
static const char VERSION[] = "format_version";

/* --- writing ------------------------------------------------------------------------------------------------------ */

typedef struct output {
    hid_t file;
    fb3_aside aside;
} output;

/* The shape of a parameter in the file; `rows` are all rows, or the active ones of the word table. */
static int file_shape(const fb3_param *param, int rows, hsize_t dims[2])
{
    dims[0] = (hsize_t)rows;
    dims[1] = (hsize_t)param->cols;
    return param->cols ? 2 : 1;
}

/* Piece by piece, so that others get in between. */
static fb3_status write_array(output *out, hid_t group, const char *name, int rank, const hsize_t *dims,
                              const float *data)
{
    hid_t dataset;
    hsize_t rows, columns = rank > 1 ? dims[1] : 1;
    FB3_TRY(fb3_h5_create_dataset(&dataset, group, name, H5T_NATIVE_FLOAT, rank, dims, NULL, PIECE_BYTES));
    fb3_status status = fb3_h5_chunk_rows(dataset, &rows);
    for (hsize_t first = 0; first < dims[0] && status == FB3_OK; first += rows) {
        hsize_t count = dims[0] - first < rows ? dims[0] - first : rows;
        status = fb3_h5_write_rows(dataset, H5T_NATIVE_FLOAT, first, count, data + first * columns);
        if (status == FB3_OK) fb3_aside_wrote(&out->aside, count * columns * sizeof *data);
    }
    (void)H5Dclose(dataset);
    return status;
}

static fb3_status write_weights(output *out, const fb3_checkpoint_content *content)
{
    hid_t group;
    fb3_status status = FB3_OK;
    const fb3_param_table *table = content->table;
    const fb3_weights *weights = &content->weights;
    FB3_TRY(fb3_h5_create_group(&group, out->file, "model"));
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        hsize_t dims[2];
        int rank = file_shape(param, param->full_rows, dims);
        const float *data = param->kind == FB3_PARAM_WORD ? weights->word_full : weights->arena + param->offset;
        FB3_TRY_GOTO(write_array(out, group, param->name, rank, dims, data), done);
    }
done:
    (void)H5Gclose(group);
    return status;
}

static fb3_status write_moment(output *out, hid_t optim, const char *name, const fb3_param_table *table,
                               const float *arena)
{
    hid_t group;
    fb3_status status = FB3_OK;
    FB3_TRY(fb3_h5_create_group(&group, optim, name));
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        hsize_t dims[2];
        int rank = file_shape(param, param->rows, dims);
        FB3_TRY_GOTO(write_array(out, group, param->name, rank, dims, arena + param->offset), done);
    }
done:
    (void)H5Gclose(group);
    return status;
}

static fb3_status write_optimizer(output *out, const fb3_checkpoint_content *content)
{
    hid_t optim;
    fb3_status status = FB3_OK;
    hsize_t active = (hsize_t)content->table->active;
    FB3_TRY(fb3_h5_create_group(&optim, out->file, "optim"));
    FB3_TRY_GOTO(fb3_h5_write(optim, "active_rows", H5T_NATIVE_UINT32, 1, &active, content->active_ids), done);
    FB3_TRY_GOTO(write_moment(out, optim, "m", content->table, content->m), done);
    FB3_TRY_GOTO(write_moment(out, optim, "v", content->table, content->v), done);
done:
    (void)H5Gclose(optim);
    return status;
}

static fb3_status write_bytes(hid_t file, const char *name, const void *data, size_t bytes)
{
    hsize_t size = bytes;
    return fb3_h5_write(file, name, H5T_NATIVE_UINT8, 1, &size, data);
}

static fb3_status write_model_config(hid_t file, const fb3_model_config *model)
{
    char *json = fb3_model_config_json(model);
    FB3_REQUIRE(json, FB3_FAILED, "out of memory for the model's configuration");
    fb3_status status = write_bytes(file, "model_config", json, strlen(json));
    free(json);
    return status;
}

static fb3_status write_state(hid_t file, const fb3_checkpoint_state *state)
{
    hid_t train;
    fb3_status status = FB3_OK;
    FB3_TRY(fb3_h5_create_group(&train, file, "train"));
    FB3_TRY_GOTO(fb3_h5_set_int(train, VERSION, FORMAT_VERSION), done);
    FB3_TRY_GOTO(fb3_checkpoint_state_write(train, state), done);
    FB3_TRY_GOTO(fb3_h5_set_int(train, COMPLETE, 1), done);
done:
    (void)H5Gclose(train);
    return status;
}

static fb3_status write_content(output *out, const char *temporary, const fb3_checkpoint_content *content)
{
    FB3_TRY(fb3_h5_create(&out->file, temporary));
    FB3_TRY(write_weights(out, content));
    if (content->m && content->v) FB3_TRY(write_optimizer(out, content));
    FB3_TRY(write_bytes(out->file, "tokenizer", content->spm, content->spm_bytes));
    FB3_TRY(write_model_config(out->file, &content->table->model));
    return write_state(out->file, content->state);
}

fb3_status fb3_checkpoint_write(const char *path, const char *previous, const fb3_checkpoint_content *content,
                                fb3_worker *give_way_to)
{
    output out = {.file = H5I_INVALID_HID};
    char *temporary = fb3_file_temporary(path);
    FB3_REQUIRE(temporary, FB3_FAILED, "out of memory to write %s", path);
    fb3_aside_begin(&out.aside, temporary, give_way_to);
    fb3_status status = write_content(&out, temporary, content);
    if (out.file >= 0) {
        fb3_status closed = fb3_h5_close(out.file, temporary);
        if (status == FB3_OK) status = closed;
    }
    if (status == FB3_OK) status = fb3_aside_publish(&out.aside, path, previous);
    fb3_aside_end(&out.aside);
    if (status != FB3_OK) (void)unlink(temporary);
    free(temporary);
    return status;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

struct fb3_checkpoint {
    char *path;
    hid_t file;
    fb3_checkpoint_state state;
    fb3_model_config model;
    int targets;
};

/* A group of this very file. */
static fb3_status open_group(hid_t *group, hid_t parent, const char *name, const char *path)
{
    H5L_info_t link;
    H5O_info_t object;
    *group = H5I_INVALID_HID;
    FB3_REQUIRE(fb3_h5_has(parent, name), FB3_INPUT, "%s has no %s; it is not a checkpoint", path, name);
    FB3_H5(H5Lget_info(parent, name, &link, H5P_DEFAULT), FB3_INPUT, "cannot read %s in %s", name, path);
    FB3_REQUIRE(link.type == H5L_TYPE_HARD, FB3_INPUT, "%s in %s is a link to somewhere else; it is not a checkpoint",
                name, path);
    FB3_H5(H5Oget_info_by_name(parent, name, &object, H5P_DEFAULT), FB3_INPUT, "cannot read %s in %s", name, path);
    FB3_REQUIRE(object.type == H5O_TYPE_GROUP, FB3_INPUT, "%s in %s is not a group; it is not a checkpoint", name,
                path);
    FB3_H5(*group = H5Gopen2(parent, name, H5P_DEFAULT), FB3_INPUT, "cannot open %s in %s", name, path);
    return FB3_OK;
}

static fb3_status read_state(fb3_checkpoint *checkpoint)
{
    hid_t train;
    int version = 0, complete = 0;
    fb3_status status = FB3_OK;
    FB3_TRY(open_group(&train, checkpoint->file, "train", checkpoint->path));
    FB3_REQUIRE_GOTO(fb3_h5_has_attribute(train, COMPLETE), done, FB3_INPUT,
                     "%s is not complete: its writing was interrupted; use another checkpoint", checkpoint->path);
    FB3_TRY_GOTO(fb3_h5_get_plain_int(train, COMPLETE, &complete), done);
    FB3_TRY_GOTO(fb3_h5_get_plain_int(train, VERSION, &version), done);
    FB3_REQUIRE_GOTO(complete == 1, done, FB3_INPUT,
                     "%s is not complete: its writing was interrupted; use another checkpoint", checkpoint->path);
    FB3_REQUIRE_GOTO(version == FORMAT_VERSION, done, FB3_INPUT,
                     "%s has format version %d, this program reads %d; use the program that wrote it", checkpoint->path,
                     version, FORMAT_VERSION);
    FB3_TRY_GOTO(fb3_checkpoint_state_read(train, &checkpoint->state), done);
    FB3_REQUIRE_GOTO(checkpoint->state.step >= 0 && checkpoint->state.max_length > 0, done, FB3_INPUT,
                     "%s has an impossible state: step %lld, max_length %d; it is damaged", checkpoint->path,
                     (long long)checkpoint->state.step, checkpoint->state.max_length);
done:
    (void)H5Gclose(train);
    return status;
}

/* A one-dimensional array of bytes. Caller frees *data, which has a 0 behind it. */
static fb3_status read_bytes(const fb3_checkpoint *checkpoint, const char *name, size_t limit, char **data,
                             size_t *bytes)
{
    int rank;
    hsize_t size = 0;
    *data = NULL;
    FB3_TRY(fb3_h5_shape(checkpoint->file, name, 1, &rank, &size));
    FB3_REQUIRE(size <= limit, FB3_INPUT, "%s in %s has %llu bytes, more than the %zu that it may have", name,
                checkpoint->path, (unsigned long long)size, limit);
    char *content = calloc((size_t)size + 1, 1);
    FB3_REQUIRE(content, FB3_FAILED, "out of memory for %s of %s", name, checkpoint->path);
    fb3_status status = fb3_h5_read(checkpoint->file, name, H5T_NATIVE_UINT8, 1, &size, content);
    if (status == FB3_OK) {
        *data = content;
        *bytes = (size_t)size;
    } else {
        free(content);
    }
    return status;
}

static fb3_status read_model_config(fb3_checkpoint *checkpoint)
{
    char *json = NULL;
    size_t bytes = 0;
    FB3_TRY(read_bytes(checkpoint, "model_config", CONFIG_TEXT_MAX, &json, &bytes));
    fb3_status status = fb3_model_config_parse(&checkpoint->model, json, bytes, checkpoint->path);
    free(json);
    return status;
}

static fb3_status read_targets(fb3_checkpoint *checkpoint, hid_t model)
{
    int rank;
    hsize_t dims[2] = {0};
    FB3_TRY(fb3_h5_shape(model, "fc.weight", 2, &rank, dims));
    FB3_REQUIRE(rank == 2 && dims[0] >= 1 && dims[0] <= TARGETS_MAX, FB3_INPUT,
                "fc.weight in %s is not the weight of a head of 1 to %d targets; it is damaged", checkpoint->path,
                TARGETS_MAX);
    checkpoint->targets = (int)dims[0];
    return FB3_OK;
}

/* /model has the parameters of the configuration in their shapes, and nothing else: so what a caller allocates for the
 * model is bounded by the file. */
static fb3_status check_parameters(const fb3_checkpoint *checkpoint, hid_t model, const fb3_param_table *table)
{
    H5G_info_t about;
    FB3_H5(H5Gget_info(model, &about), FB3_INPUT, "cannot read /model in %s", checkpoint->path);
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        int rank, wanted_rank;
        hsize_t dims[2] = {0}, wanted[2];
        wanted_rank = file_shape(param, param->full_rows, wanted);
        FB3_TRY(fb3_h5_shape(model, param->name, 2, &rank, dims));
        FB3_REQUIRE(rank == wanted_rank && memcmp(dims, wanted, (size_t)rank * sizeof *dims) == 0, FB3_INPUT,
                    "%s in %s does not have the shape that its configuration says; it is damaged", param->name,
                    checkpoint->path);
    }
    FB3_REQUIRE(about.nlinks == (hsize_t)table->count, FB3_INPUT,
                "%s has %llu parameters, its configuration says %d; it is damaged", checkpoint->path,
                (unsigned long long)about.nlinks, table->count);
    return FB3_OK;
}

/* The table of the file's model; how many word rows are active plays no part in it. */
static fb3_status make_table(fb3_param_table **table, const fb3_checkpoint *checkpoint)
{
    return fb3_param_table_create(table, &checkpoint->model, 1, checkpoint->targets);
}

static fb3_status check_model(fb3_checkpoint *checkpoint)
{
    hid_t model;
    fb3_param_table *table = NULL;
    fb3_status status = FB3_OK;
    FB3_TRY(open_group(&model, checkpoint->file, "model", checkpoint->path));
    FB3_TRY_GOTO(read_targets(checkpoint, model), done);
    FB3_TRY_GOTO(make_table(&table, checkpoint), done);
    FB3_TRY_GOTO(check_parameters(checkpoint, model, table), done);
done:
    fb3_param_table_free(table);
    (void)H5Gclose(model);
    return status;
}

fb3_status fb3_checkpoint_open(fb3_checkpoint **out, const char *path)
{
    *out = NULL;
    bool on_record = false;
    fb3_status status = FB3_OK;
    FB3_TRY(fb3_hash_verify(path, &on_record));
    fb3_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    FB3_REQUIRE(checkpoint, FB3_FAILED, "out of memory to open %s", path);
    checkpoint->file = H5I_INVALID_HID;
    checkpoint->path = strdup(path);
    FB3_REQUIRE_GOTO(checkpoint->path, done, FB3_FAILED, "out of memory to open %s", path);
    FB3_TRY_GOTO(fb3_h5_open(&checkpoint->file, path), done);
    FB3_TRY_GOTO(read_state(checkpoint), done);
    FB3_TRY_GOTO(read_model_config(checkpoint), done);
    FB3_TRY_GOTO(check_model(checkpoint), done);
    if (!on_record) fb3_log_warn("%s has no hash file beside it; it is read without that check", path);
    *out = checkpoint;
    checkpoint = NULL;
done:
    fb3_checkpoint_close(checkpoint);
    return status;
}

void fb3_checkpoint_close(fb3_checkpoint *checkpoint)
{
    if (!checkpoint) return;
    if (checkpoint->file >= 0) (void)fb3_h5_close(checkpoint->file, checkpoint->path);
    fb3_checkpoint_state_free(&checkpoint->state);
    free(checkpoint->path);
    free(checkpoint);
}

/* A file that may be there; *checkpoint stays NULL when it is not, or not complete (with a warning). */
static fb3_status open_if_complete(fb3_checkpoint **checkpoint, const char *path)
{
    *checkpoint = NULL;
    if (access(path, F_OK) != 0) return FB3_OK;
    fb3_status status = fb3_checkpoint_open(checkpoint, path);
    if (status != FB3_INPUT) return status;
    fb3_log_warn("skipping a checkpoint: %s", fb3_error_text());
    return FB3_OK;
}

fb3_status fb3_checkpoint_open_newest(fb3_checkpoint **checkpoint, const char *last, const char *previous)
{
    *checkpoint = NULL;
    fb3_checkpoint *newest = NULL, *older = NULL;
    FB3_TRY(open_if_complete(&newest, last));
    fb3_status status = open_if_complete(&older, previous);
    if (status != FB3_OK) {
        fb3_checkpoint_close(newest);
        return status;
    }
    if (older && (!newest || older->state.step > newest->state.step)) {
        fb3_checkpoint *swapped = newest;
        newest = older;
        older = swapped;
    }
    fb3_checkpoint_close(older);
    *checkpoint = newest;
    return FB3_OK;
}

const fb3_checkpoint_state *fb3_checkpoint_state_of(const fb3_checkpoint *checkpoint)
{
    return &checkpoint->state;
}

const fb3_model_config *fb3_checkpoint_model(const fb3_checkpoint *checkpoint)
{
    return &checkpoint->model;
}

int fb3_checkpoint_targets(const fb3_checkpoint *checkpoint)
{
    return checkpoint->targets;
}

bool fb3_checkpoint_has_optimizer(const fb3_checkpoint *checkpoint)
{
    return fb3_h5_has(checkpoint->file, "optim");
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

fb3_status fb3_checkpoint_tokenizer(const fb3_checkpoint *checkpoint, void **spm, size_t *bytes)
{
    char *data = NULL;
    *spm = NULL;
    *bytes = 0;
    FB3_TRY(read_bytes(checkpoint, "tokenizer", TOKENIZER_MAX, &data, bytes));
    *spm = data;
    return FB3_OK;
}

fb3_status fb3_checkpoint_read_weights(const fb3_checkpoint *checkpoint, const fb3_param_table *table,
                                       fb3_weights *weights)
{
    hid_t model;
    fb3_status status = FB3_OK;
    FB3_TRY(open_group(&model, checkpoint->file, "model", checkpoint->path));
    FB3_TRY_GOTO(check_parameters(checkpoint, model, table), done);
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        hsize_t dims[2];
        int rank = file_shape(param, param->full_rows, dims);
        float *to = param->kind == FB3_PARAM_WORD ? weights->word_full : weights->arena + param->offset;
        FB3_TRY_GOTO(fb3_h5_read(model, param->name, H5T_NATIVE_FLOAT, rank, dims, to), done);
    }
done:
    (void)H5Gclose(model);
    return status;
}

static fb3_status read_moment(const fb3_checkpoint *checkpoint, hid_t optim, const char *name,
                              const fb3_param_table *table, float *arena)
{
    hid_t group;
    fb3_status status = FB3_OK;
    FB3_TRY(open_group(&group, optim, name, checkpoint->path));
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        hsize_t dims[2];
        int rank = file_shape(param, param->rows, dims);
        FB3_TRY_GOTO(fb3_h5_read(group, param->name, H5T_NATIVE_FLOAT, rank, dims, arena + param->offset), done);
    }
done:
    (void)H5Gclose(group);
    return status;
}

/* The moments of the word table belong to these rows and no others. */
static fb3_status check_active_rows(const fb3_checkpoint *checkpoint, hid_t optim, const fb3_param_table *table,
                                    const uint32_t *active_ids)
{
    int rank;
    hsize_t rows = 0;
    FB3_TRY(fb3_h5_shape(optim, "active_rows", 1, &rank, &rows));
    FB3_REQUIRE(rows == (hsize_t)table->active, FB3_INPUT,
                "%s was trained on data with %llu different tokens, this data has %d; resume with the same data",
                checkpoint->path, (unsigned long long)rows, table->active);
    uint32_t *ids = malloc((size_t)rows * sizeof *ids);
    FB3_REQUIRE(ids, FB3_FAILED, "out of memory for the active rows of %s", checkpoint->path);
    fb3_status status = fb3_h5_read(optim, "active_rows", H5T_NATIVE_UINT32, 1, &rows, ids);
    if (status == FB3_OK && memcmp(ids, active_ids, (size_t)rows * sizeof *ids) != 0)
        status = fb3_fail(FB3_INPUT, "%s was trained on data with other tokens; resume with the same data",
                          checkpoint->path);
    free(ids);
    return status;
}

fb3_status fb3_checkpoint_read_moments(const fb3_checkpoint *checkpoint, const fb3_param_table *table, float *m,
                                       float *v, const uint32_t *active_ids)
{
    hid_t optim;
    fb3_status status = FB3_OK;
    FB3_REQUIRE(fb3_checkpoint_has_optimizer(checkpoint), FB3_INPUT,
                "%s has weights only, no optimizer state; resume from last.h5", checkpoint->path);
    FB3_TRY(open_group(&optim, checkpoint->file, "optim", checkpoint->path));
    FB3_TRY_GOTO(check_active_rows(checkpoint, optim, table, active_ids), done);
    FB3_TRY_GOTO(read_moment(checkpoint, optim, "m", table, m), done);
    FB3_TRY_GOTO(read_moment(checkpoint, optim, "v", table, v), done);
done:
    (void)H5Gclose(optim);
    return status;
}

/* --- inspect ------------------------------------------------------------------------------------------------------ */

static void print_parameters(const fb3_param_table *table)
{
    printf("/model\n");
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        if (param->cols)
            printf("  %-64s [%d, %d]\n", param->name, param->full_rows, param->cols);
        else
            printf("  %-64s [%d]\n", param->name, param->full_rows);
    }
    printf("  %lld parameters\n", (long long)table->full_parameters);
}

fb3_status fb3_checkpoint_print(const char *path)
{
    fb3_checkpoint *checkpoint = NULL;
    fb3_param_table *table = NULL;
    fb3_status status = FB3_OK;
    FB3_TRY(fb3_checkpoint_open(&checkpoint, path));
    FB3_TRY_GOTO(make_table(&table, checkpoint), done);
    printf("%s: checkpoint, %d targets, %s\n/train\n", path, checkpoint->targets,
           fb3_checkpoint_has_optimizer(checkpoint) ? "with optimizer state" : "weights only");
    fb3_checkpoint_state_print(&checkpoint->state);
    print_parameters(table);
done:
    fb3_param_table_free(table);
    fb3_checkpoint_close(checkpoint);
    return status;
}
