/* pytorch_model.bin files that were damaged or made to mislead: pickles that would run code in Python, tensors outside
 * of their storage, archives whose directory lies. Each is refused with one line, and nothing is ever run. */
#include "io_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

enum { STORAGE_BYTES = 24 }; /* six floats */

static const unsigned char storage[STORAGE_BYTES];

/* The archive of a pickle and one storage. */
static const char *archive(const void *pickle, size_t bytes)
{
    const char *path = scratch_path("hostile.bin");
    const member members[] = {{"m/data.pkl", pickle, bytes},
                              {"m/byteorder", "little", 6},
                              {"m/data/0", storage, sizeof storage},
                              {NULL, NULL, 0}};
    write_archive(path, members);
    return path;
}

/* --- pickles, assembled by hand (opcodes: Python's pickletools) --------------------------------------------------- */

#define PROTO                "\x80\x02"
#define GLOBAL(module, name) "c" module "\n" name "\n"
#define TEXT(length, text)   "X" length "\0\0\0" text
#define INT1(byte)           "K" byte
#define INT8(bytes)          "\x8a\x08" bytes
#define ORDERED              GLOBAL("collections", "OrderedDict") ")R"
#define KEY                  TEXT("\1", "0")
#define STORAGE(key, size)   "(" TEXT("\7", "storage") GLOBAL("torch", "FloatStorage") key TEXT("\3", "cpu") size "tQ"
#define REBUILD(storage, offset, shape, stride)                                                                        \
    GLOBAL("torch._utils", "_rebuild_tensor_v2") "(" storage offset shape stride "\x89" ORDERED "tR"
#define SIX    STORAGE(KEY, INT1("\6"))
#define SHAPE  "(" INT1("\2") INT1("\3") "t"
#define STRIDE "(" INT1("\3") INT1("\1") "t"
#define TENSOR REBUILD(SIX, INT1("\0"), SHAPE, STRIDE)
/* {"a": value} */
#define DICT(value) PROTO "}(" TEXT("\1", "a") value "u."

#define MAXIMUM      INT8("\xff\xff\xff\xff\xff\xff\xff\x7f")
#define MINUS_ONE    "J\xff\xff\xff\xff"
#define TWO_TO_32    INT8("\0\0\0\0\1\0\0\0")
#define ONE(integer) "(" integer "t"

typedef struct pickle_case {
    const char *pickle;
    size_t bytes;
    const char *refusal;
} pickle_case;

#define CASE(pickle, refusal)                                                                                          \
    {                                                                                                                  \
        pickle, sizeof(pickle) - 1, refusal                                                                            \
    }

static const pickle_case pickles[] = {
    /* code */
    CASE(PROTO GLOBAL("os", "system") TEXT("\4", "true") "\x85R.", "asks for os.system"),
    CASE(PROTO GLOBAL("posix", "system") TEXT("\4", "true") "\x85R.", "asks for posix.system"),
    CASE(DICT(GLOBAL("builtins", "eval") TEXT("\1", "1") "\x85R"), "asks for builtins.eval"),
    CASE(DICT(GLOBAL("__builtin__", "getattr")), "asks for __builtin__.getattr"),
    CASE(DICT(GLOBAL("torch", "load")), "asks for torch.load"),
    CASE(DICT(GLOBAL("torch._utils", "_rebuild_tensor_v2.__globals__")), "asks for torch._utils._rebuild"),
    CASE(DICT(GLOBAL("collections", "OrderedDict ")), "asks for collections.OrderedDict "),
    CASE(DICT(GLOBAL("\x1b[2J", "x")), "asks for ?[2J.x"),
    CASE(PROTO "c"
               "os",
         "ends early"),
    CASE("\x80\x04"
         "\x8c\2os\x8c\6system\x93.",
         "protocol 4"),
    CASE(PROTO "\x8c\2os\x8c\6system\x93.", "opcode 0x8c"),
    CASE(PROTO "(ios\nsystem\n.", "opcode 0x69"),
    CASE(PROTO "(" GLOBAL("collections", "OrderedDict") "o.", "opcode 0x6f"),
    CASE(PROTO GLOBAL("collections", "OrderedDict") ")\x81.", "opcode 0x81"),
    CASE(PROTO "\x82\1.", "opcode 0x82"),
    CASE(PROTO "Pabc\n.", "opcode 0x50"),
    CASE(PROTO "I01\n.", "opcode 0x49"),
    CASE(PROTO "S'a'\n.", "opcode 0x53"),
    CASE(PROTO "0.", "opcode 0x30"),
    CASE(DICT(GLOBAL("torch", "FloatStorage") ")R"), "a storage type is called"),
    CASE(DICT(TEXT("\1", "f") ")R"), "wrong kind"),
    CASE(DICT(GLOBAL("collections", "OrderedDict") "(]tR"), "made from something"),
    CASE(DICT(GLOBAL("torch._utils", "_rebuild_parameter") "(K\1tR"), "not made from a tensor"),
    CASE(DICT(GLOBAL("torch._utils", "_rebuild_parameter") ")R"), "not made from a tensor"),
    CASE(DICT(")"
              "}"
              "b"),
         "wrong kind"),
    CASE(DICT("}"
              ")"
              "b"),
         "wrong kind"),
    /* the machine */
    CASE("", "does not begin with a protocol"),
    CASE("}.", "does not begin with a protocol"),
    CASE(PROTO, "ends early"),
    CASE(PROTO ".", "more or less than one value"),
    CASE(PROTO "}}.", "more or less than one value"),
    CASE(PROTO "}(.", "more or less than one value"),
    CASE(PROTO "}.}", "bytes follow its end"),
    CASE(PROTO "R", "the stack is empty"),
    CASE(PROTO "t", "there is no mark"),
    CASE(PROTO "u", "there is no mark"),
    CASE(PROTO "K\1(\x85", "the stack is empty"),
    CASE(PROTO "}(s", "the stack is empty"),
    CASE(PROTO "q\0", "the stack is empty"),
    CASE(PROTO "}r\xff\xff\xff\xff", "a memo is out of order"),
    CASE(PROTO "}q\1", "a memo is out of order"),
    CASE(PROTO "h\0", "a memo is read before it is set"),
    CASE(PROTO "}q\0j\1\0\0\0", "a memo is read before it is set"),
    CASE(PROTO "X\xff\xff\xff\xff"
               "a",
         "ends early"),
    CASE(PROTO "G\0\0", "ends early"),
    CASE(PROTO "\x8a\x09\1\1\1\1\1\1\1\1\1.", "does not fit 64 bits"),
    CASE(PROTO "}(" TEXT("\1", "a") "u.", "a key has no value"),
    CASE(PROTO ")(" TEXT("\1", "a") ")u.", "wrong kind"),
    CASE(PROTO "}(a.", "the stack is empty"),
    CASE(PROTO "]q\0h\0a.", "holds no dict"),
    CASE(PROTO "}q\0" TEXT("\1", "a") "h\0s.", "holds no tensors"),
    CASE(PROTO ").", "holds no dict"),
    CASE(DICT("N"), "holds no tensors"),
    /* storages */
    CASE(DICT(")Q"), "not a storage"),
    CASE(DICT("K\1Q"), "wrong kind"),
    CASE(DICT("(" TEXT("\7", "module_") GLOBAL("torch", "FloatStorage") KEY TEXT("\3", "cpu") "K\6tQ"),
         "not a storage"),
    CASE(DICT("(" TEXT("\7", "storage") GLOBAL("collections", "OrderedDict") KEY TEXT("\3", "cpu") "K\6tQ"),
         "not a storage"),
    CASE(DICT(STORAGE(TEXT("\4", "../x"), INT1("\6"))), "not a storage"),
    CASE(DICT(STORAGE(TEXT("\0", ""), INT1("\6"))), "not a storage"),
    CASE(DICT(STORAGE(TEXT("\x15", "000000000000000000000"), INT1("\6"))), "not a storage"),
    CASE(DICT(STORAGE(KEY, MINUS_ONE)), "not a storage"),
    CASE(DICT(REBUILD(STORAGE(TEXT("\1", "7"), INT1("\6")), INT1("\0"), SHAPE, STRIDE)), "no member data/7"),
    CASE(DICT(REBUILD(STORAGE(KEY, INT1("\7")), INT1("\0"), SHAPE, STRIDE)), "has 24 bytes, but its pickle says 7"),
    CASE(DICT(REBUILD(STORAGE(KEY, MAXIMUM), INT1("\0"), SHAPE, STRIDE)), "has 24 bytes"),
    CASE(DICT(REBUILD(STORAGE(KEY, TWO_TO_32), INT1("\0"), ONE(TWO_TO_32), ONE("K\1"))), "has 24 bytes"),
    /* tensors */
    CASE(DICT(REBUILD(SIX, INT1("\1"), SHAPE, STRIDE)), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, MINUS_ONE, SHAPE, STRIDE)), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, MAXIMUM, SHAPE, STRIDE)), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\5"), ONE("K\6"), ONE(MINUS_ONE))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE(MINUS_ONE), ONE("K\1"))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE("K\7"), ONE("K\1"))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE("K\2"), ONE(MAXIMUM))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE("K\3"), ONE(MAXIMUM))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE(MAXIMUM), ONE("K\0"))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE(TWO_TO_32 TWO_TO_32), ONE("K\1K\1"))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\7"), ONE("K\0"), ONE("K\1"))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), SHAPE, ONE("K\1"))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE("K\1K\1K\1K\1K\6"), ONE("K\1K\1K\1K\1K\1"))), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), TEXT("\1", "a"), STRIDE)), "do not fit its storage"),
    CASE(DICT(REBUILD(SIX, INT1("\0"), ONE("N"), ONE("N"))), "do not fit its storage"),
    CASE(DICT(REBUILD(KEY, INT1("\0"), SHAPE, STRIDE)), "do not fit its storage"),
    CASE(DICT(GLOBAL("torch._utils", "_rebuild_tensor_v2") ")R"), "do not fit its storage"),
    /* state dicts */
    CASE(PROTO "}(K\1" TENSOR "u.", "a tensor without a name"),
    CASE(PROTO "}(" TEXT("\3", "a\nb") TENSOR "u.", "the name 'a?b'"),
    CASE(PROTO "}(" TEXT("\1", "a") TENSOR TEXT("\1", "a") TENSOR "u.", "two tensors of the name a"),
    CASE(PROTO "}(" TEXT("\1", "a") "}(" TEXT("\1", "t") TENSOR "u" TEXT("\1", "b") "}(" TEXT("\1", "t") TENSOR "uu.",
         "more than one state dict"),
};

static void pickles_are_refused(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    for (size_t i = 0; i < sizeof pickles / sizeof pickles[0]; i++)
        assert_refused(fb3_torch_zip_open(&file, archive(pickles[i].pickle, pickles[i].bytes)), pickles[i].refusal);
}

/* What the cases above are made of is good, so they are refused for what they say. */
static void the_same_without_malice(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    static const char good[] = DICT(TENSOR), cyclic[] = PROTO "}q\0(" TEXT("\1", "a") TENSOR TEXT("\1", "b") "h\0u.";
    static const char inside[] = PROTO "}(" TEXT("\1", "m") "}q\0(" TEXT("\1", "a") TENSOR TEXT("\1", "b") "h\0uu.";
    const pickle_case cases[] = {
        CASE(DICT(TENSOR), ""), {cyclic, sizeof cyclic - 1, ""}, {inside, sizeof inside - 1, ""}};
    (void)good;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(fb3_torch_zip_open(&file, archive(cases[i].pickle, cases[i].bytes)));
        assert_int_equal(file->count, 1);
        assert_int_equal(file->tensor[0].elements, 6);
        fb3_tensor_file_close(file);
    }
}

/* Many times one opcode, after `start`. */
static void bomb(const char *start, size_t start_bytes, const char *unit, size_t unit_bytes, size_t times,
                 const char *refusal)
{
    fb3_tensor_file *file;
    char *pickle = malloc(start_bytes + unit_bytes * times);
    assert_non_null(pickle);
    memcpy(pickle, start, start_bytes);
    for (size_t i = 0; i < times; i++) memcpy(pickle + start_bytes + i * unit_bytes, unit, unit_bytes);
    assert_refused(fb3_torch_zip_open(&file, archive(pickle, start_bytes + unit_bytes * times)), refusal);
    free(pickle);
}

static void bombs(void **state)
{
    (void)state;
    enum { MANY = 1 << 20 };
    bomb(PROTO, 2, "(", 1, MANY, "too many marks");
    bomb(PROTO, 2, "N", 1, MANY, "the stack is too high");
    bomb(PROTO ")", 3, "\x85", 1, MANY, "ends early");                            /* ((((...),),),) */
    bomb(PROTO ")q\0", 5, "h\0h\0\x86q\0", 7, MANY / 2, "the stack is too high"); /* doubled each time */
    bomb(PROTO "]q\0", 5, "h\0a", 3, MANY, "ends early");
    bomb(PROTO "N", 3, "q\0", 2, 2 * MANY, "at most 4194304");
}

/* --- archives ----------------------------------------------------------------------------------------------------- */

static const char good_pickle[] = DICT(TENSOR);

/* A good archive, to be patched. Caller frees. */
static unsigned char *good_archive(size_t *bytes)
{
    return read_whole(archive(good_pickle, sizeof good_pickle - 1), bytes);
}

static fb3_status open_bytes(const unsigned char *data, size_t bytes)
{
    fb3_tensor_file *file;
    write_file(scratch_path("patched.bin"), data, bytes);
    fb3_status status = fb3_torch_zip_open(&file, scratch_path("patched.bin"));
    if (status == FB3_OK) {
        status = fb3_tensor_file_verify(file);
        fb3_tensor_file_close(file);
    }
    return status;
}

/* `bytes` bytes at `offset` behind the `nth` place of a signature become `patch`. */
typedef struct patch_case {
    const char *signature;
    int nth, offset;
    const char *patch;
    size_t bytes;
    const char *refusal;
} patch_case;

#define ENTRY "PK\1\2"
#define LOCAL "PK\3\4"
#define END   "PK\5\6"
#define PATCH(signature, nth, offset, patch, refusal)                                                                  \
    {                                                                                                                  \
        signature, nth, offset, patch, sizeof(patch) - 1, refusal                                                      \
    }

/* Members in order: data.pkl, byteorder, data/0. */
static const patch_case patches[] = {
    PATCH(END, 0, 0, "PK\5\7", "no end record"),
    PATCH(END, 0, 20, "\1\0", "no end record"),
    PATCH(END, 0, 16, "\xff\xff\xff\x7f", "the directory lies outside"),
    PATCH(END, 0, 12, "\xff\xff\xff\xff", "the directory lies outside"),
    PATCH(END, 0, 16, "\0\0\0\0", "the directory ends early"),
    PATCH(END, 0, 10, "\4\0", "too small for its members"),
    PATCH(END, 0, 10, "\xff\xff", "too small for its members"),
    PATCH(END, 0, 10, "\0\0", "without a data.pkl"),
    PATCH(ENTRY, 1, 0, "XX", "the directory ends early"),
    PATCH(ENTRY, 2, 28, "\xff\xff", "the directory ends early"),
    PATCH(ENTRY, 2, 28, "\0\0", "no proper name"),
    PATCH(ENTRY, 0, 42, "\xff\xff\xff\x7f", "a member lies outside"),
    PATCH(ENTRY, 2, 42, "\0\0\0\0", "another name than the directory"),
    PATCH(ENTRY, 2, 42, "\1\0\0\0", "no local header"),
    PATCH(ENTRY, 2, 20, "\xff\xff\xff\x7f\xff\xff\xff\x7f", "a member lies outside"),
    PATCH(ENTRY, 2, 20, "\0\1\0\0\0\1\0\0", "a member runs into the directory"),
    PATCH(ENTRY, 2, 24, "\1\0\0\0", "the sizes of a stored member differ"),
    PATCH(ENTRY, 2, 10, "\x08\0", "compressed or encrypted"),
    PATCH(ENTRY, 2, 8, "\1\0", "compressed or encrypted"),
    PATCH(ENTRY, 0, 8, "\1\0", "compressed or encrypted"),
    PATCH(ENTRY, 2, 46, "m/data/1", "no member data/0"),
    PATCH(ENTRY, 0, 46, "m/data.pkx", "without a data.pkl"),
    PATCH(ENTRY, 0, 46, "\0", "no proper name"),
    PATCH(ENTRY, 0, 16, "\0\0\0\0", "a checksum does not match"),
    PATCH(ENTRY, 2, 16, "\1\1\1\1", "the checksum of the 24 bytes"),
    PATCH(LOCAL, 2, 0, "PK\3\5", "no local header"),
    PATCH(LOCAL, 2, 26, "\7\0", "another name than the directory"),
    PATCH(LOCAL, 2, 28, "\xff\xff", "a member runs into the directory"),
    PATCH(LOCAL, 2, 30, "m/data/1", "another name than the directory"),
    PATCH(LOCAL, 0, 0, "XX\3\4", "not a file of torch.save"),
    PATCH(LOCAL, 2, 38, "\1", "the checksum of the 24 bytes"),
};

static unsigned char *find_nth(unsigned char *data, size_t bytes, const char *signature, int nth)
{
    unsigned char *at = memmem(data, bytes, signature, 4);
    for (; at && nth > 0; nth--) at = memmem(at + 1, bytes - (size_t)(at + 1 - data), signature, 4);
    assert_non_null(at);
    return at;
}

static void patched_archives(void **state)
{
    (void)state;
    size_t bytes;
    for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
        const patch_case *patch = &patches[i];
        unsigned char *data = good_archive(&bytes);
        assert_ok(open_bytes(data, bytes));
        memcpy(find_nth(data, bytes, patch->signature, patch->nth) + patch->offset, patch->patch, patch->bytes);
        assert_refused(open_bytes(data, bytes), patch->refusal);
        free(data);
    }
}

/* Two storages; the second one's entry is made to say that it is, or lies within, the first. */
static void two_members_in_one_place(void **state)
{
    (void)state;
    enum { FIRST_BYTES = 64, NAME = 8, DIRECTORY_NAME = 46, DIRECTORY_HEADER = 42 };
    static const char pickle[] =
        PROTO "}(" TEXT("\1", "a") REBUILD(STORAGE(KEY, INT1("\x10")), INT1("\0"), ONE("K\x10"), ONE("K\1"))
            TEXT("\1", "b") REBUILD(STORAGE(TEXT("\1", "1"), INT1("\6")), INT1("\0"), SHAPE, STRIDE) "u.";
    unsigned char first[FIRST_BYTES] = LOCAL; /* what looks like the local header of the second */
    first[26] = NAME;
    memcpy(first + 30, "m/data/1", NAME);
    const member members[] = {{"m/data.pkl", pickle, sizeof pickle - 1},
                              {"m/data/0", first, sizeof first},
                              {"m/data/1", storage, sizeof storage},
                              {NULL, NULL, 0}};
    size_t bytes;
    write_archive(scratch_path("two.bin"), members);
    unsigned char *data = read_whole(scratch_path("two.bin"), &bytes);
    assert_ok(open_bytes(data, bytes));
    unsigned char *entry = find_nth(data, bytes, ENTRY, 2);
    uint32_t inside = (uint32_t)(find_nth(data, bytes, LOCAL, 2) - data);
    memcpy(entry + DIRECTORY_HEADER, &inside, sizeof inside);
    assert_refused(open_bytes(data, bytes), "two members overlap");
    memcpy(entry + DIRECTORY_NAME, "m/data/0", NAME);
    assert_refused(open_bytes(data, bytes), "two members have one name");
    free(data);
}

/* An archive of one entry with a ZIP64 extra field that says this size and offset. */
static void zip64_sizes(void **state)
{
    (void)state;
    enum { NAME = 10, EXTRA = 4 + 24 };
    static const uint64_t hostile[][3] = {{UINT64_MAX, 0, 0},
                                          {(uint64_t)1 << 63, 0, 0},
                                          {0, (uint64_t)1 << 62, 0},
                                          {0, 0, (uint64_t)1 << 63},
                                          {4, 4, 1 << 20}};
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        unsigned char file[30 + NAME + 46 + NAME + EXTRA + 22] = LOCAL;
        unsigned char *entry = file + 30 + NAME, *extra = entry + 46 + NAME, *end = extra + EXTRA;
        file[26] = NAME;
        memcpy(file + 30, "m/data.pkl", NAME);
        memcpy(entry, ENTRY, 4);
        memset(entry + 20, 0xff, 8);
        memset(entry + 42, 0xff, 4);
        entry[28] = NAME;
        entry[30] = EXTRA;
        memcpy(entry + 46, "m/data.pkl", NAME);
        extra[0] = 1;
        extra[2] = 24;
        memcpy(extra + 4, hostile[i], sizeof hostile[i]);
        memcpy(end, END, 4);
        end[8] = end[10] = 1;
        end[12] = 46 + NAME + EXTRA;
        end[16] = 30 + NAME;
        assert_refused(open_bytes(file, sizeof file), "a member lies outside");
        extra[2] = 16; /* the offset is missing */
        assert_refused(open_bytes(file, sizeof file), "an extra field is malformed");
        extra[2] = 25;
        assert_refused(open_bytes(file, sizeof file), "an extra field is malformed");
    }
}

static void archives_of_another_kind(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    const char *path = scratch_path("kind.bin");
    const size_t bytes = sizeof good_pickle - 1;
    const member none[] = {{"m/other", "x", 1}, {NULL, NULL, 0}};
    const member two[] = {{"m/data.pkl", good_pickle, bytes}, {"n/data.pkl", good_pickle, bytes}, {NULL, NULL, 0}};
    const member deep[] = {{"a/b/data.pkl", good_pickle, bytes}, {NULL, NULL, 0}};
    const member big[] = {{"m/data.pkl", good_pickle, bytes}, {"m/byteorder", "big", 3}, {NULL, NULL, 0}};
    const member lost[] = {{"m/data.pkl", good_pickle, bytes}, {"n/data/0", storage, STORAGE_BYTES}, {NULL, NULL, 0}};
    write_archive(path, none);
    assert_refused(fb3_torch_zip_open(&file, path), "without a data.pkl");
    write_archive(path, two);
    assert_refused(fb3_torch_zip_open(&file, path), "more than one data.pkl");
    write_archive(path, deep);
    assert_refused(fb3_torch_zip_open(&file, path), "without a data.pkl");
    write_archive(path, big);
    assert_refused(fb3_torch_zip_open(&file, path), "big-endian");
    write_archive(path, lost);
    assert_refused(fb3_torch_zip_open(&file, path), "no member data/0");
}

static void deflated_pickle(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    static const char zeros[1000];
    const char *path = scratch_path("deflated.bin");
    zip_t *made = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);
    assert_non_null(made);
    assert_true(zip_file_add(made, "m/data.pkl", zip_source_buffer(made, zeros, sizeof zeros, 0), 0) == 0);
    assert_int_equal(zip_close(made), 0);
    assert_refused(fb3_torch_zip_open(&file, path), "compressed or encrypted");
}

/* Every shorter file is refused, wherever it was cut. */
static void truncated_archives(void **state)
{
    (void)state;
    size_t bytes;
    unsigned char *data = good_archive(&bytes);
    for (size_t length = 0; length < bytes; length++) assert_refused(open_bytes(data, length), "");
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pickles_are_refused),
        cmocka_unit_test(the_same_without_malice),
        cmocka_unit_test(bombs),
        cmocka_unit_test(patched_archives),
        cmocka_unit_test(zip64_sizes),
        cmocka_unit_test(two_members_in_one_place),
        cmocka_unit_test(archives_of_another_kind),
        cmocka_unit_test(deflated_pickle),
        cmocka_unit_test(truncated_archives),
    };
    return cmocka_run_group_tests(tests, NULL, clear_scratch);
}
