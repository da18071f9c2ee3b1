/* The parameter table: what each layer and the two ends of the model consist of, as data, and the loop that lays it
 * out. Names are those of transformers' DebertaV2Model. */
#include "fb3/params.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OFFSET_MULTIPLE = 16 /* floats: one cache line, so every parameter starts on one */ };

/* A dimension of a parameter, before the model's numbers are known. */
typedef enum dimension { NONE, HIDDEN, INTERMEDIATE, TARGETS, POSITIONS, ACTIVE, DIMENSIONS } dimension;

typedef struct template
{
    fb3_param_kind kind;
    const char *name; /* inside a layer: what follows "encoder.layer.N." */
    dimension rows, cols;
    bool decay;
    fb3_param_init init;
}
template;

#define MATRIX(kind, name, rows, cols)                                                                                 \
    {                                                                                                                  \
        kind, name, rows, cols, true, FB3_INIT_NORMAL                                                                  \
    }
#define BIAS(kind, name, rows)                                                                                         \
    {                                                                                                                  \
        kind, name, rows, NONE, false, FB3_INIT_ZERO                                                                   \
    }
#define SCALE(kind, name, rows)                                                                                        \
    {                                                                                                                  \
        kind, name, rows, NONE, false, FB3_INIT_ONE                                                                    \
    }

static const template head[] = {
    MATRIX(FB3_PARAM_HEAD_WEIGHT, "fc.weight", TARGETS, HIDDEN),
    BIAS(FB3_PARAM_HEAD_BIAS, "fc.bias", TARGETS),
};

static const template layer[] = {
    MATRIX(FB3_PARAM_QUERY_WEIGHT, "attention.self.query_proj.weight", HIDDEN, HIDDEN),
    MATRIX(FB3_PARAM_KEY_WEIGHT, "attention.self.key_proj.weight", HIDDEN, HIDDEN),
    MATRIX(FB3_PARAM_VALUE_WEIGHT, "attention.self.value_proj.weight", HIDDEN, HIDDEN),
    BIAS(FB3_PARAM_QUERY_BIAS, "attention.self.query_proj.bias", HIDDEN),
    BIAS(FB3_PARAM_KEY_BIAS, "attention.self.key_proj.bias", HIDDEN),
    BIAS(FB3_PARAM_VALUE_BIAS, "attention.self.value_proj.bias", HIDDEN),
    MATRIX(FB3_PARAM_ATTENTION_OUT_WEIGHT, "attention.output.dense.weight", HIDDEN, HIDDEN),
    BIAS(FB3_PARAM_ATTENTION_OUT_BIAS, "attention.output.dense.bias", HIDDEN),
    SCALE(FB3_PARAM_ATTENTION_NORM_WEIGHT, "attention.output.LayerNorm.weight", HIDDEN),
    BIAS(FB3_PARAM_ATTENTION_NORM_BIAS, "attention.output.LayerNorm.bias", HIDDEN),
    MATRIX(FB3_PARAM_FFN_IN_WEIGHT, "intermediate.dense.weight", INTERMEDIATE, HIDDEN),
    BIAS(FB3_PARAM_FFN_IN_BIAS, "intermediate.dense.bias", INTERMEDIATE),
    MATRIX(FB3_PARAM_FFN_OUT_WEIGHT, "output.dense.weight", HIDDEN, INTERMEDIATE),
    BIAS(FB3_PARAM_FFN_OUT_BIAS, "output.dense.bias", HIDDEN),
    SCALE(FB3_PARAM_FFN_NORM_WEIGHT, "output.LayerNorm.weight", HIDDEN),
    BIAS(FB3_PARAM_FFN_NORM_BIAS, "output.LayerNorm.bias", HIDDEN),
};

/* Every layer and every token adds to these, so they close last. */
static const template embeddings[] = {
    MATRIX(FB3_PARAM_REL_EMBEDDINGS, "encoder.rel_embeddings.weight", POSITIONS, HIDDEN),
    SCALE(FB3_PARAM_REL_NORM_WEIGHT, "encoder.LayerNorm.weight", HIDDEN),
    BIAS(FB3_PARAM_REL_NORM_BIAS, "encoder.LayerNorm.bias", HIDDEN),
    SCALE(FB3_PARAM_EMBEDDING_NORM_WEIGHT, "embeddings.LayerNorm.weight", HIDDEN),
    BIAS(FB3_PARAM_EMBEDDING_NORM_BIAS, "embeddings.LayerNorm.bias", HIDDEN),
    MATRIX(FB3_PARAM_WORD, "embeddings.word_embeddings.weight", ACTIVE, HIDDEN),
};

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static int *index_slot(const fb3_param_table *table, fb3_param_kind kind, int layer_number)
{
    return &table->index[(layer_number + 1) * FB3_PARAM_KINDS + (int)kind];
}

static void add_param(fb3_param_table *table, const template *from, int layer_number, const int size[DIMENSIONS])
{
    fb3_param *param = &table->param[table->count];
    *param = (fb3_param){.kind = from->kind,
                         .layer = layer_number,
                         .rows = size[from->rows],
                         .cols = size[from->cols],
                         .full_rows = from->rows == ACTIVE ? table->model.vocab : size[from->rows],
                         .offset = table->size,
                         .decay = from->decay,
                         .init = from->init,
                         .range = table->ranges};
    int64_t row_elements = param->cols ? param->cols : 1;
    param->count = param->rows * row_elements;
    if (layer_number < 0)
        snprintf(param->name, sizeof param->name, "%s", from->name);
    else
        snprintf(param->name, sizeof param->name, "encoder.layer.%d.%s", layer_number, from->name);

    *index_slot(table, from->kind, layer_number) = table->count++;
    table->size += (param->count + OFFSET_MULTIPLE - 1) / OFFSET_MULTIPLE * OFFSET_MULTIPLE;
    table->parameters += param->count;
    table->full_parameters += param->full_rows * row_elements;
}

/* Parameters whose gradients are final at the same moment. */
static void add_range(fb3_param_table *table, const template *from, int count, int layer_number,
                      const int size[DIMENSIONS])
{
    int64_t start = table->size;
    for (int i = 0; i < count; i++) add_param(table, &from[i], layer_number, size);
    table->range[table->ranges++] =
        (fb3_param_range){.offset = start, .count = table->size - start, .layer = layer_number};
}

fb3_status fb3_param_table_create(fb3_param_table **out, const fb3_model_config *model, int active, int targets)
{
    *out = NULL;
    FB3_REQUIRE(targets >= 1, FB3_INPUT, "a model needs at least one target column");
    FB3_REQUIRE(active >= 1 && active <= model->vocab, FB3_INPUT,
                "%d different tokens for a model with %d word rows; take the tokenizer that belongs to the model",
                active, model->vocab);

    fb3_param_table *table = calloc(1, sizeof *table);
    if (!table) goto no_memory;
    table->model = *model;
    table->active = active;
    table->targets = targets;
    size_t params = COUNT(head) + (size_t)model->layers * COUNT(layer) + COUNT(embeddings);
    size_t slots = ((size_t)model->layers + 1) * FB3_PARAM_KINDS;
    table->param = calloc(params, sizeof *table->param);
    table->range = calloc((size_t)model->layers + 2, sizeof *table->range);
    table->index = malloc(slots * sizeof *table->index);
    if (!table->param || !table->range || !table->index) goto no_memory;
    for (size_t i = 0; i < slots; i++) table->index[i] = -1;

    const int size[DIMENSIONS] = {
        [NONE] = 0,
        [HIDDEN] = model->hidden,
        [INTERMEDIATE] = model->intermediate,
        [TARGETS] = targets,
        [POSITIONS] = fb3_model_rel_rows(model),
        [ACTIVE] = active,
    };
    add_range(table, head, COUNT(head), -1, size);
    for (int l = model->layers - 1; l >= 0; l--) add_range(table, layer, COUNT(layer), l, size);
    add_range(table, embeddings, COUNT(embeddings), -1, size);
    *out = table;
    return FB3_OK;

no_memory:
    fb3_param_table_free(table);
    return fb3_fail(FB3_FAILED, "out of memory for the parameter table of %d layers", model->layers);
}

void fb3_param_table_free(fb3_param_table *table)
{
    if (!table) return;
    free(table->param);
    free(table->range);
    free(table->index);
    free(table);
}

const fb3_param *fb3_param_find(const fb3_param_table *table, fb3_param_kind kind, int layer_number)
{
    assert(layer_number >= -1 && layer_number < table->model.layers && kind < FB3_PARAM_KINDS);
    int index = *index_slot(table, kind, layer_number);
    assert(index >= 0);
    return &table->param[index];
}

const fb3_param *fb3_param_by_name(const fb3_param_table *table, const char *name)
{
    for (int i = 0; i < table->count; i++) {
        if (strcmp(table->param[i].name, name) == 0) return &table->param[i];
    }
    return NULL;
}
