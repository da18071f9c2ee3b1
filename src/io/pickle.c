/* A restricted unpickler: reads the state dict that torch.save wrote and runs nothing.
 *
 * A pickle is a program for a small stack machine (Python's pickletools documents every opcode); Python's own reader
 * imports and calls whatever it names. This one knows only the opcodes that torch.save emits (protocol 2) and the
 * callables in `globals`; each call is done here, by hand, as data. Everything else is refused by name.
 *
 * Memory is bounded before it starts: an opcode makes at most one value, pushes at most one item and stores at most one
 * memo, so as many slots as the pickle has bytes are enough for each. Values refer to each other by index and are never
 * followed more than a few levels deep, so shared, nested and cyclic structures cost nothing. */
#include "pickle.h"
#include "tensor_file.h"

#include <stdlib.h>
#include <string.h>

enum {
    PICKLE_MAX = 4 << 20, /* a DeBERTa-v3-large's has some 60 KB */
    STACK_MAX = 1 << 16,  /* Python's pickler sets at most 1000 items (2000 stack slots) at a time */
    MARKS_MAX = 64,
    PROTO = 0x80, /* the opcode that every pickle begins with */
    PROTOCOL = 2,
};

/* What a global is to us. */
typedef enum callable { MAKE_ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, STORAGE_TYPE } callable;

typedef struct global {
    const char *module, *name;
    callable callable;
    fb3_file_dtype dtype; /* of a storage */
    int element_bytes;
} global;

static const global globals[] = {
    {"collections", "OrderedDict", MAKE_ORDERED_DICT, FB3_FILE_OTHER, 0},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, FB3_FILE_OTHER, 0},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, FB3_FILE_OTHER, 0},
    {"torch", "FloatStorage", STORAGE_TYPE, FB3_FILE_F32, 4},
    {"torch", "HalfStorage", STORAGE_TYPE, FB3_FILE_F16, 2},
    {"torch", "BFloat16Storage", STORAGE_TYPE, FB3_FILE_BF16, 2},
    {"torch", "DoubleStorage", STORAGE_TYPE, FB3_FILE_F64, 8},
    {"torch", "LongStorage", STORAGE_TYPE, FB3_FILE_I64, 8},
    {"torch", "IntStorage", STORAGE_TYPE, FB3_FILE_OTHER, 4},
    {"torch", "ShortStorage", STORAGE_TYPE, FB3_FILE_OTHER, 2},
    {"torch", "CharStorage", STORAGE_TYPE, FB3_FILE_OTHER, 1},
    {"torch", "ByteStorage", STORAGE_TYPE, FB3_FILE_OTHER, 1},
    {"torch", "BoolStorage", STORAGE_TYPE, FB3_FILE_OTHER, 1},
};
enum { GLOBALS = sizeof globals / sizeof globals[0] };

/* NONE stands for every scalar that nothing here looks at: None, True, False, floats. */
typedef enum kind { NONE, INTEGER, TEXT, TUPLE, LIST, DICT, GLOBAL, STORAGE, TENSOR } kind;

/* Indices are into the arrays of the unpickler. */
typedef struct value {
    kind kind;
    uint32_t first,
        count;       /* TEXT, STORAGE's key: bytes of the pickle; TUPLE: `item`; DICT: first and last `entry`, + 1 */
    uint32_t refers; /* GLOBAL, STORAGE: `globals`; TENSOR: the tuple of _rebuild_tensor_v2's arguments */
    int64_t integer; /* INTEGER; STORAGE: elements */
} value;

/* A dict's entries are a list in the order of assignment. */
typedef struct entry {
    uint32_t key, value, next; /* next + 1; 0 ends */
} entry;

typedef struct unpickler {
    const uint8_t *data;
    size_t bytes, at;
    const char *what;
    value *value;
    uint32_t values;
    uint32_t *item, items;
    entry *entry;
    uint32_t entries;
    uint32_t *memo, memos;
    uint32_t stack[STACK_MAX], height;
    uint32_t mark[MARKS_MAX], marks;
    bool stopped;
} unpickler;

static fb3_status malformed(const unpickler *u, const char *why)
{
    return fb3_fail(FB3_INPUT, "%s: the pickle is malformed at byte %zu: %s; it is damaged or not of torch.save",
                    u->what, u->at, why);
}

static fb3_status take(unpickler *u, size_t bytes, const uint8_t **from)
{
    if (bytes > u->bytes - u->at) return malformed(u, "it ends early");
    *from = u->data + u->at;
    u->at += bytes;
    return FB3_OK;
}

/* A little-endian unsigned integer of at most 8 bytes. */
static fb3_status take_unsigned(unpickler *u, size_t bytes, uint64_t *number)
{
    const uint8_t *from = NULL;
    FB3_TRY(take(u, bytes, &from));
    *number = 0;
    for (size_t i = bytes; i-- > 0;) *number = *number << 8 | from[i];
    return FB3_OK;
}

static fb3_status push_index(unpickler *u, uint32_t index)
{
    if (u->height >= STACK_MAX) return malformed(u, "the stack is too high");
    u->stack[u->height++] = index;
    return FB3_OK;
}

static fb3_status push(unpickler *u, value made)
{
    u->value[u->values] = made;
    return push_index(u, u->values++);
}

/* Nothing below the topmost mark may be popped. */
static uint32_t floor_of(const unpickler *u)
{
    return u->marks ? u->mark[u->marks - 1] : 0;
}

static fb3_status pop(unpickler *u, uint32_t *index)
{
    if (u->height <= floor_of(u)) return malformed(u, "the stack is empty");
    *index = u->stack[--u->height];
    return FB3_OK;
}

static fb3_status pop_kind(unpickler *u, kind wanted, value **popped)
{
    uint32_t index = 0;
    FB3_TRY(pop(u, &index));
    *popped = &u->value[index];
    return (*popped)->kind == wanted ? FB3_OK : malformed(u, "a value is of the wrong kind");
}

/* The value under the items above a mark. */
static fb3_status top_kind(unpickler *u, kind wanted, value **top)
{
    if (u->height <= floor_of(u)) return malformed(u, "the stack is empty");
    *top = &u->value[u->stack[u->height - 1]];
    return (*top)->kind == wanted ? FB3_OK : malformed(u, "a value is of the wrong kind");
}

/* *first is the stack slot of the first of the topmost `count` items; count 0: of those above the mark, which goes. */
static fb3_status first_item(unpickler *u, size_t count, uint32_t *first)
{
    if (count == 0 && u->marks == 0) return malformed(u, "there is no mark");
    if (u->height - floor_of(u) < count) return malformed(u, "the stack is empty");
    *first = count == 0 ? u->mark[--u->marks] : u->height - (uint32_t)count;
    return FB3_OK;
}

/* --- scalars, containers, memo ------------------------------------------------------------------------------------ */

static fb3_status push_integer(unpickler *u, int64_t number)
{
    return push(u, (value){.kind = INTEGER, .integer = number});
}

static fb3_status op_unsigned(unpickler *u, size_t bytes)
{
    uint64_t number = 0;
    FB3_TRY(take_unsigned(u, bytes, &number));
    return push_integer(u, (int64_t)number);
}

static fb3_status op_binint(unpickler *u, size_t bytes)
{
    uint64_t number = 0;
    FB3_TRY(take_unsigned(u, bytes, &number));
    return push_integer(u, (int32_t)(uint32_t)number);
}

/* Two's complement of any length; torch needs it for sizes above 2^31, so more than 8 bytes are refused. */
static fb3_status op_long(unpickler *u, size_t length_bytes)
{
    uint64_t bytes = 0, number = 0;
    FB3_TRY(take_unsigned(u, length_bytes, &bytes));
    if (bytes > sizeof number) return malformed(u, "an integer does not fit 64 bits");
    if (bytes == 0) return push_integer(u, 0);
    FB3_TRY(take_unsigned(u, bytes, &number));
    unsigned unused = (unsigned)(sizeof number - bytes) * 8;
    return push_integer(u, (int64_t)(number << unused) >> unused);
}

/* A scalar of `bytes` bytes that nothing here looks at. */
static fb3_status op_ignored(unpickler *u, size_t bytes)
{
    const uint8_t *ignored;
    FB3_TRY(take(u, bytes, &ignored));
    return push(u, (value){.kind = NONE});
}

static fb3_status op_empty(unpickler *u, size_t kind_of_container)
{
    return push(u, (value){.kind = (kind)kind_of_container});
}

static fb3_status op_text(unpickler *u, size_t length_bytes)
{
    uint64_t bytes = 0;
    const uint8_t *from = NULL;
    FB3_TRY(take_unsigned(u, length_bytes, &bytes));
    FB3_TRY(take(u, bytes, &from));
    return push(u, (value){.kind = TEXT, .first = (uint32_t)(from - u->data), .count = (uint32_t)bytes});
}

/* A tuple of the stack's items from `first` on. */
static fb3_status make_tuple(unpickler *u, uint32_t first)
{
    value made = {.kind = TUPLE, .first = u->items, .count = u->height - first};
    memcpy(u->item + u->items, u->stack + first, made.count * sizeof *u->item);
    u->items += made.count;
    u->height = first;
    return push(u, made);
}

/* `count` items, or 0: those above the mark. */
static fb3_status op_tuple(unpickler *u, size_t count)
{
    uint32_t first = 0;
    FB3_TRY(first_item(u, count, &first));
    return make_tuple(u, first);
}

/* Nothing here looks into lists: their items are dropped. */
static fb3_status op_append(unpickler *u, size_t count)
{
    value *list;
    FB3_TRY(first_item(u, count, &u->height));
    return top_kind(u, LIST, &list);
}

static void dict_append(unpickler *u, value *dict, uint32_t key, uint32_t assigned)
{
    u->entry[u->entries++] = (entry){.key = key, .value = assigned};
    if (dict->first == 0)
        dict->first = u->entries;
    else
        u->entry[dict->count - 1].next = u->entries;
    dict->count = u->entries;
}

/* Key and value, or all such pairs above the mark. */
static fb3_status op_set_items(unpickler *u, size_t count)
{
    value *dict = NULL;
    uint32_t first = 0, last = u->height;
    FB3_TRY(first_item(u, count, &first));
    if ((last - first) % 2 != 0) return malformed(u, "a key has no value");
    u->height = first;
    FB3_TRY(top_kind(u, DICT, &dict));
    for (uint32_t i = first; i < last; i += 2) dict_append(u, dict, u->stack[i], u->stack[i + 1]);
    return FB3_OK;
}

/* Python's pickler numbers memos 0, 1, 2, ...: an index above that is not its work. */
static fb3_status op_put(unpickler *u, size_t bytes)
{
    uint64_t index = 0;
    FB3_TRY(take_unsigned(u, bytes, &index));
    if (index > u->memos) return malformed(u, "a memo is out of order");
    if (u->height <= floor_of(u)) return malformed(u, "the stack is empty");
    u->memo[index] = u->stack[u->height - 1];
    if (index == u->memos) u->memos++;
    return FB3_OK;
}

static fb3_status op_get(unpickler *u, size_t bytes)
{
    uint64_t index = 0;
    FB3_TRY(take_unsigned(u, bytes, &index));
    if (index >= u->memos) return malformed(u, "a memo is read before it is set");
    return push_index(u, u->memo[index]);
}

/* --- what would be calls ------------------------------------------------------------------------------------------ */

/* A line without its end, as a range of the pickle. */
static fb3_status take_line(unpickler *u, const char **line, size_t *length)
{
    const uint8_t *from = u->data + u->at, *end = memchr(from, '\n', u->bytes - u->at);
    if (!end) return malformed(u, "it ends early");
    *line = (const char *)from;
    *length = (size_t)(end - from);
    u->at += *length + 1;
    return FB3_OK;
}

static bool same_text(const char *text, size_t length, const char *wanted)
{
    return length == strlen(wanted) && memcmp(text, wanted, length) == 0;
}

static fb3_status op_global(unpickler *u, size_t unused)
{
    const char *module = NULL, *name = NULL;
    size_t module_length = 0, name_length = 0;
    (void)unused;
    FB3_TRY(take_line(u, &module, &module_length));
    FB3_TRY(take_line(u, &name, &name_length));
    for (uint32_t i = 0; i < GLOBALS; i++)
        if (same_text(module, module_length, globals[i].module) && same_text(name, name_length, globals[i].name))
            return push(u, (value){.kind = GLOBAL, .refers = i});
    char shown_module[FB3_SHOWN_BYTES], shown_name[FB3_SHOWN_BYTES];
    return fb3_fail(FB3_INPUT,
                    "%s: the pickle asks for %s.%s, which weights do not need; it may be malicious, or more than a "
                    "state dict was saved: save model.state_dict() alone, or as safetensors",
                    u->what, fb3_shown(shown_module, module, module_length), fb3_shown(shown_name, name, name_length));
}

static value *item_of(const unpickler *u, const value *tuple, uint32_t i)
{
    return &u->value[u->item[tuple->first + i]];
}

static bool is_text(const unpickler *u, const value *text, const char *wanted)
{
    return text->kind == TEXT && same_text((const char *)u->data + text->first, text->count, wanted);
}

static bool is_storage_key(const unpickler *u, const value *key)
{
    if (key->kind != TEXT || key->count == 0 || key->count > FB3_STORAGE_KEY_MAX) return false;
    for (uint32_t i = 0; i < key->count; i++)
        if (u->data[key->first + i] < '0' || u->data[key->first + i] > '9') return false;
    return true;
}

/* ("storage", storage type, key, location, number of elements) */
static fb3_status op_persistent_id(unpickler *u, size_t unused)
{
    enum { TAG, TYPE, KEY, LOCATION, ELEMENTS, FIELDS };
    value *id = NULL;
    (void)unused;
    FB3_TRY(pop_kind(u, TUPLE, &id));
    if (id->count != FIELDS || !is_text(u, item_of(u, id, TAG), "storage")) return malformed(u, "not a storage");
    const value *type = item_of(u, id, TYPE), *key = item_of(u, id, KEY), *elements = item_of(u, id, ELEMENTS);
    if (type->kind != GLOBAL || globals[type->refers].callable != STORAGE_TYPE || !is_storage_key(u, key) ||
        item_of(u, id, LOCATION)->kind != TEXT || elements->kind != INTEGER || elements->integer < 0)
        return malformed(u, "not a storage");
    return push(u, (value){.kind = STORAGE,
                           .first = key->first,
                           .count = key->count,
                           .refers = type->refers,
                           .integer = elements->integer});
}

/* Arguments of torch._utils._rebuild_tensor_v2; the rest (requires_grad, backward hooks, metadata) is not needed. */
enum tensor_argument { ARG_STORAGE, ARG_OFFSET, ARG_SHAPE, ARG_STRIDE, ARGS_NEEDED = 6, ARGS_MAX = 7 };

/* The last element that shape and strides reach lies in the storage; strides are not negative. No more elements than
 * the storage has: a stride of 0 would let a few bytes stand for any number of them. */
static bool fits_storage(const fb3_pickled_tensor *tensor)
{
    int64_t last = tensor->storage_offset, span;
    if (last < 0 || tensor->elements > tensor->storage_elements) return false;
    for (int d = 0; d < tensor->dims; d++) {
        if (tensor->stride[d] < 0) return false;
        if (tensor->elements == 0) continue;
        if (__builtin_mul_overflow(tensor->shape[d] - 1, tensor->stride[d], &span) ||
            __builtin_add_overflow(last, span, &last))
            return false;
    }
    return tensor->elements == 0 ? last <= tensor->storage_elements : last < tensor->storage_elements;
}

static bool read_sizes(const unpickler *u, const value *tuple, int64_t sizes[FB3_TENSOR_MAX_DIMS])
{
    if (tuple->kind != TUPLE || tuple->count > FB3_TENSOR_MAX_DIMS) return false;
    for (uint32_t d = 0; d < tuple->count; d++) {
        const value *size = item_of(u, tuple, d);
        if (size->kind != INTEGER) return false;
        sizes[d] = size->integer;
    }
    return true;
}

/* Reads and checks the arguments of a tensor; false when they are not possible. */
static bool read_tensor(const unpickler *u, const value *arguments, fb3_pickled_tensor *tensor)
{
    if (arguments->count < ARGS_NEEDED || arguments->count > ARGS_MAX) return false;
    const value *storage = item_of(u, arguments, ARG_STORAGE), *offset = item_of(u, arguments, ARG_OFFSET);
    const value *shape = item_of(u, arguments, ARG_SHAPE), *stride = item_of(u, arguments, ARG_STRIDE);
    if (storage->kind != STORAGE || offset->kind != INTEGER) return false;
    if (!read_sizes(u, shape, tensor->shape) || !read_sizes(u, stride, tensor->stride)) return false;
    if (shape->count != stride->count) return false;
    tensor->dims = (int)shape->count;
    tensor->dtype = globals[storage->refers].dtype;
    tensor->element_bytes = globals[storage->refers].element_bytes;
    tensor->storage_elements = storage->integer;
    tensor->storage_offset = offset->integer;
    memcpy(tensor->storage, u->data + storage->first, storage->count);
    tensor->storage[storage->count] = 0;
    return fb3_shape_elements(tensor->dims, tensor->shape, &tensor->elements) && fits_storage(tensor);
}

static fb3_status rebuild_tensor(unpickler *u, const value *arguments)
{
    fb3_pickled_tensor tensor;
    if (!read_tensor(u, arguments, &tensor))
        return malformed(u, "a tensor's shape, strides and offset do not fit its storage");
    return push(u, (value){.kind = TENSOR, .refers = (uint32_t)(arguments - u->value)});
}

static fb3_status op_reduce(unpickler *u, size_t unused)
{
    value *arguments = NULL, *function = NULL;
    (void)unused;
    FB3_TRY(pop_kind(u, TUPLE, &arguments));
    FB3_TRY(pop_kind(u, GLOBAL, &function));
    switch (globals[function->refers].callable) {
    case MAKE_ORDERED_DICT:
        if (arguments->count != 0) return malformed(u, "an OrderedDict is made from something");
        return push(u, (value){.kind = DICT});
    case REBUILD_TENSOR:
        return rebuild_tensor(u, arguments);
    case REBUILD_PARAMETER:
        /* (tensor, requires_grad, backward hooks): to us the tensor itself */
        if (arguments->count == 0 || item_of(u, arguments, 0)->kind != TENSOR)
            return malformed(u, "a parameter is not made from a tensor");
        return push_index(u, u->item[arguments->first]);
    default:
        return malformed(u, "a storage type is called");
    }
}

/* torch.save keeps the attribute _metadata of a state dict: nothing to us. */
static fb3_status op_build(unpickler *u, size_t unused)
{
    value *state, *object;
    (void)unused;
    FB3_TRY(pop_kind(u, DICT, &state));
    return top_kind(u, DICT, &object);
}

static fb3_status op_mark(unpickler *u, size_t unused)
{
    (void)unused;
    if (u->marks >= MARKS_MAX) return malformed(u, "too many marks");
    u->mark[u->marks++] = u->height;
    return FB3_OK;
}

static fb3_status op_proto(unpickler *u, size_t version_bytes)
{
    uint64_t protocol = 0;
    FB3_TRY(take_unsigned(u, version_bytes, &protocol));
    FB3_REQUIRE(protocol == PROTOCOL, FB3_INPUT,
                "%s: the pickle has protocol %d, torch.save writes %d; save it with the default pickle_protocol",
                u->what, (int)protocol, PROTOCOL);
    return FB3_OK;
}

static fb3_status op_stop(unpickler *u, size_t unused)
{
    (void)unused;
    u->stopped = true;
    return FB3_OK;
}

/* The opcodes that torch.save emits, by their names in pickletools; `argument` is the size of what follows the opcode,
 * the number of items it takes from the stack (0: those above the mark) or the kind of value it makes. */
typedef struct operation {
    uint8_t opcode;
    fb3_status (*run)(unpickler *u, size_t argument);
    size_t argument;
} operation;

static const operation operations[] = {
    {PROTO, op_proto, 1},       {'.', op_stop, 0}, /* STOP */
    {'(', op_mark, 0},                             /* MARK */
    {'N', op_ignored, 0},                          /* NONE */
    {0x88, op_ignored, 0},                         /* NEWTRUE */
    {0x89, op_ignored, 0},                         /* NEWFALSE */
    {'G', op_ignored, 8},                          /* BINFLOAT */
    {'K', op_unsigned, 1},                         /* BININT1 */
    {'M', op_unsigned, 2},                         /* BININT2 */
    {'J', op_binint, 4},                           /* BININT */
    {0x8a, op_long, 1},                            /* LONG1 */
    {'X', op_text, 4},                             /* BINUNICODE */
    {')', op_empty, TUPLE},                        /* EMPTY_TUPLE */
    {']', op_empty, LIST},                         /* EMPTY_LIST */
    {'}', op_empty, DICT},                         /* EMPTY_DICT */
    {'t', op_tuple, 0},                            /* TUPLE */
    {0x85, op_tuple, 1},                           /* TUPLE1 */
    {0x86, op_tuple, 2},                           /* TUPLE2 */
    {0x87, op_tuple, 3},                           /* TUPLE3 */
    {'a', op_append, 1},                           /* APPEND */
    {'e', op_append, 0},                           /* APPENDS */
    {'s', op_set_items, 2},                        /* SETITEM */
    {'u', op_set_items, 0},                        /* SETITEMS */
    {'q', op_put, 1},                              /* BINPUT */
    {'r', op_put, 4},                              /* LONG_BINPUT */
    {'h', op_get, 1},                              /* BINGET */
    {'j', op_get, 4},                              /* LONG_BINGET */
    {'c', op_global, 0},                           /* GLOBAL */
    {'Q', op_persistent_id, 0},                    /* BINPERSID */
    {'R', op_reduce, 0},                           /* REDUCE */
    {'b', op_build, 0},                            /* BUILD */
};

static fb3_status step(unpickler *u)
{
    const uint8_t *opcode = NULL;
    FB3_TRY(take(u, 1, &opcode));
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (operations[i].opcode == *opcode) return operations[i].run(u, operations[i].argument);
    return fb3_fail(FB3_INPUT,
                    "%s: the pickle has opcode 0x%02x at byte %zu, which torch.save never writes; save "
                    "model.state_dict() alone, or as safetensors",
                    u->what, *opcode, u->at - 1);
}

/* --- the state dict in the result --------------------------------------------------------------------------------- */

static int count_tensors(const unpickler *u, const value *dict)
{
    int count = 0;
    for (uint32_t e = dict->first; e != 0; e = u->entry[e - 1].next)
        count += u->value[u->entry[e - 1].value].kind == TENSOR;
    return count;
}

/* The root when it holds tensors, else the only dict in it that does. */
static fb3_status find_state_dict(const unpickler *u, const value *root, const value **dict)
{
    FB3_REQUIRE(root->kind == DICT, FB3_INPUT, "%s holds no dict; save model.state_dict()", u->what);
    *dict = count_tensors(u, root) > 0 ? root : NULL;
    for (uint32_t e = root->first; e != 0 && *dict != root; e = u->entry[e - 1].next) {
        const value *inner = &u->value[u->entry[e - 1].value];
        if (inner->kind != DICT || count_tensors(u, inner) == 0) continue;
        FB3_REQUIRE(!*dict || *dict == inner, FB3_INPUT,
                    "%s holds more than one state dict; save the one of the model alone", u->what);
        *dict = inner;
    }
    FB3_REQUIRE(*dict, FB3_INPUT, "%s holds no tensors; save model.state_dict()", u->what);
    return FB3_OK;
}

/* What is not a tensor (counters, versions) is left out. */
static fb3_status list_tensors(const unpickler *u, const value *dict, fb3_pickled_tensor **tensors, int *count)
{
    int room = count_tensors(u, dict);
    *count = 0;
    *tensors = calloc((size_t)room, sizeof **tensors);
    FB3_REQUIRE(*tensors, FB3_FAILED, "out of memory for the %d tensors of %s", room, u->what);
    for (uint32_t e = dict->first; e != 0; e = u->entry[e - 1].next) {
        const value *key = &u->value[u->entry[e - 1].key], *tensor = &u->value[u->entry[e - 1].value];
        if (tensor->kind != TENSOR) continue;
        FB3_REQUIRE(key->kind == TEXT, FB3_INPUT, "%s holds a tensor without a name; save model.state_dict()", u->what);
        fb3_pickled_tensor *made = &(*tensors)[(*count)++];
        (void)read_tensor(u, &u->value[tensor->refers], made); /* it was checked when it was made */
        made->name = (const char *)u->data + key->first;
        made->name_bytes = key->count;
    }
    return FB3_OK;
}

static fb3_status run(unpickler *u, const value **root)
{
    if (u->bytes == 0 || u->data[0] != PROTO) return malformed(u, "it does not begin with a protocol");
    while (!u->stopped) FB3_TRY(step(u));
    if (u->height != 1 || u->marks != 0) return malformed(u, "it ends with more or less than one value");
    if (u->at != u->bytes) return malformed(u, "bytes follow its end");
    *root = &u->value[u->stack[0]];
    return FB3_OK;
}

fb3_status fb3_unpickle_state_dict(fb3_pickled_tensor **tensors, int *count, const uint8_t *data, size_t bytes,
                                   const char *what)
{
    *tensors = NULL;
    *count = 0;
    FB3_REQUIRE(bytes <= PICKLE_MAX, FB3_INPUT, "%s: the pickle has %zu bytes, more than the %d of any state dict",
                what, bytes, PICKLE_MAX);
    fb3_status status = FB3_OK;
    const value *root = NULL, *dict = NULL;
    unpickler *u = calloc(1, sizeof *u);
    FB3_REQUIRE(u, FB3_FAILED, "out of memory to read %s", what);
    u->data = data;
    u->bytes = bytes;
    u->what = what;
    u->value = malloc((bytes + 1) * sizeof *u->value);
    u->item = malloc((bytes + 1) * sizeof *u->item);
    u->entry = malloc((bytes + 1) * sizeof *u->entry);
    u->memo = malloc((bytes + 1) * sizeof *u->memo);
    FB3_REQUIRE_GOTO(u->value && u->item && u->entry && u->memo, done, FB3_FAILED, "out of memory to read %s", what);
    FB3_TRY_GOTO(run(u, &root), done);
    FB3_TRY_GOTO(find_state_dict(u, root, &dict), done);
    FB3_TRY_GOTO(list_tensors(u, dict, tensors, count), done);
done:
    if (status != FB3_OK) {
        free(*tensors);
        *tensors = NULL;
    }
    free(u->value);
    free(u->item);
    free(u->entry);
    free(u->memo);
    free(u);
    return status;
}
