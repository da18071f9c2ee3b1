/* Names in weights files of the wild, and the parameters that they are.
 *
 * The parameter table has the names of DebertaV2Model's own state dict ("encoder.layer.0...."); files put the names of
 * the modules around it in front ("deberta.", "model.", "module.deberta.", ...), and old ones call the weight and bias
 * of a LayerNorm gamma and beta. Heads that only pre-training or other tasks use are skipped by `unused`; whatever else
 * is not in the table is an error, so that nothing is left behind silently. */
#include "hf_names.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum {
    LISTED_MAX = 4, /* names that an error shows of each kind */
    LIST_BYTES = 512,
};

static const char *const prefixes[] = {"module.", "model.", "backbone.", "deberta."};

/* Tensors that a file may have and this model has no use for: heads of pre-training and of other tasks, absolute
 * positions (DeBERTa-v3's configuration does not add them to the input), and the difference "_weight" that
 * gradient-disentangled embedding sharing keeps beside a weight into which it is already merged. */
typedef enum rule { STARTS_WITH, ENDS_WITH, IS } rule;
typedef struct unused_tensor {
    rule rule;
    const char *text;
} unused_tensor;

static const unused_tensor unused[] = {
    {STARTS_WITH, "lm_predictions."}, {STARTS_WITH, "mask_predictions."}, {STARTS_WITH, "cls."},
    {STARTS_WITH, "pooler."},         {STARTS_WITH, "classifier."},       {STARTS_WITH, "qa_outputs."},
    {ENDS_WITH, "._weight"},          {ENDS_WITH, "position_ids"},        {IS, "embeddings.position_embeddings.weight"},
};

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool is_unused(const char *name)
{
    for (size_t i = 0; i < COUNT(unused); i++) {
        const char *text = unused[i].text;
        switch (unused[i].rule) {
        case STARTS_WITH:
            if (starts_with(name, text)) return true;
            break;
        case ENDS_WITH:
            if (ends_with(name, text)) return true;
            break;
        case IS:
            if (strcmp(name, text) == 0) return true;
            break;
        }
    }
    return false;
}

static const char *without_prefixes(const char *name)
{
    for (size_t i = 0; i < COUNT(prefixes);) {
        if (starts_with(name, prefixes[i])) {
            name += strlen(prefixes[i]);
            i = 0;
        } else {
            i++;
        }
    }
    return name;
}

/* The parameter's name for a tensor's name of at most FB3_TENSOR_NAME_MAX characters. */
static void canonical_name(char canonical[FB3_TENSOR_NAME_MAX + 2], const char *name)
{
    static const char gamma[] = "LayerNorm.gamma", beta[] = "LayerNorm.beta";
    name = without_prefixes(name);
    size_t length = strlen(name);
    if (ends_with(name, gamma))
        sprintf(canonical, "%.*sweight", (int)(length - strlen("gamma")), name);
    else if (ends_with(name, beta))
        sprintf(canonical, "%.*sbias", (int)(length - strlen("beta")), name);
    else
        strcpy(canonical, name);
}

/* --- the list of what does not fit -------------------------------------------------------------------------------- */

typedef struct name_list {
    int count;
    char text[LIST_BYTES];
} name_list;

static void list_add(name_list *list, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void list_add(name_list *list, const char *format, ...)
{
    size_t used = strlen(list->text);
    if (list->count < LISTED_MAX) {
        used += (size_t)snprintf(list->text + used, sizeof list->text - used, "%s", list->count ? ", " : "");
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(list->text + used, sizeof list->text - used, format, arguments);
        va_end(arguments);
    } else if (list->count == LISTED_MAX) {
        snprintf(list->text + used, sizeof list->text - used, ", ...");
    }
    list->count++;
}

static void show_shape(char *text, size_t bytes, int dims, const int64_t *shape)
{
    size_t used = (size_t)snprintf(text, bytes, "[");
    for (int d = 0; d < dims && used < bytes; d++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%lld", d ? ", " : "", (long long)shape[d]);
    if (used < bytes) snprintf(text + used, bytes - used, "]");
}

/* --- matching ----------------------------------------------------------------------------------------------------- */

static bool is_head(const fb3_param *param)
{
    return param->kind == FB3_PARAM_HEAD_WEIGHT || param->kind == FB3_PARAM_HEAD_BIAS;
}

static bool same_shape(const fb3_tensor *tensor, const fb3_param *param)
{
    if (tensor->shape[0] != param->full_rows) return false;
    return param->cols == 0 ? tensor->dims == 1 : tensor->dims == 2 && tensor->shape[1] == param->cols;
}

static void check_shape(name_list *misshapen, const fb3_tensor *tensor, const fb3_param *param)
{
    char is[FB3_SHOWN_BYTES], needed[FB3_SHOWN_BYTES];
    const int64_t shape[] = {param->full_rows, param->cols};
    if (same_shape(tensor, param)) return;
    show_shape(is, sizeof is, tensor->dims, tensor->shape);
    show_shape(needed, sizeof needed, param->cols ? 2 : 1, shape);
    list_add(misshapen, "%s is %s, not %s", tensor->name, is, needed);
}

/* Finds the parameter of each tensor; tensors of no parameter go on the list. */
static fb3_status assign(const fb3_tensor_file *file, const fb3_param_table *table, const fb3_tensor **source,
                         name_list *extra)
{
    char name[FB3_TENSOR_NAME_MAX + 2];
    for (int i = 0; i < file->count; i++) {
        const fb3_tensor *tensor = &file->tensor[i];
        canonical_name(name, tensor->name);
        const fb3_param *param = fb3_param_by_name(table, name);
        if (!param) {
            if (!is_unused(name)) list_add(extra, "%s", tensor->name);
            continue;
        }
        const fb3_tensor **slot = &source[param - table->param];
        FB3_REQUIRE(!*slot, FB3_INPUT, "%s has %s and %s, which are the same parameter; keep one of them", file->path,
                    (*slot)->name, tensor->name);
        *slot = tensor;
    }
    return FB3_OK;
}

fb3_status fb3_hf_match(const fb3_tensor_file *file, const fb3_param_table *table, const fb3_tensor **source)
{
    name_list missing = {0}, extra = {0}, misshapen = {0};
    const fb3_tensor *head[2] = {0};
    for (int i = 0; i < table->count; i++) source[i] = NULL;
    FB3_TRY(assign(file, table, source, &extra));
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        if (is_head(param)) head[param->kind == FB3_PARAM_HEAD_BIAS] = source[i];
        if (source[i])
            check_shape(&misshapen, source[i], param);
        else if (!is_head(param))
            list_add(&missing, "%s", param->name);
    }
    if (!head[0] != !head[1]) list_add(&missing, "%s", head[0] ? "fc.bias" : "fc.weight");
    if (missing.count + extra.count + misshapen.count == 0) return FB3_OK;

    char text[3 * LIST_BYTES + 128] = "";
    size_t used = 0;
    const struct {
        const name_list *list;
        const char *what;
    } parts[] = {{&missing, "missing"}, {&extra, "unknown"}, {&misshapen, "misshapen"}};
    for (size_t i = 0; i < COUNT(parts); i++)
        if (parts[i].list->count)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%d %s (%s)", used ? ", " : "",
                                     parts[i].list->count, parts[i].what, parts[i].list->text);
    return fb3_fail(FB3_INPUT, "%s does not have the tensors of its model: %s; take the config.json of these weights",
                    file->path, text);
}

const fb3_tensor *fb3_hf_find_parameter(const fb3_tensor_file *file, const char *wanted)
{
    char name[FB3_TENSOR_NAME_MAX + 2];
    for (int i = 0; i < file->count; i++) {
        canonical_name(name, file->tensor[i].name);
        if (strcmp(name, wanted) == 0) return &file->tensor[i];
    }
    return NULL;
}
