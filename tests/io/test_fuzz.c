/* Mutated safetensors headers, pickles and archives, from a fixed seed for a few seconds: no crash (the sanitizers say
 * more), and what opens can be read to its last element, so every size and offset was checked. FB3_FUZZ_SECONDS and
 * FB3_FUZZ_SEED ask for more. */
#include "io_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zip.h>

enum { LENGTH_BYTES = 8, MUTATIONS_MAX = 6, ROOM = 64, ELEMENTS_MAX = 1 << 20 };

static uint64_t random_state;
static double seconds_each;

static size_t below(size_t limit)
{
    return limit == 0 ? 0 : (size_t)(next_random(&random_state) % limit);
}

/* Bytes with a meaning in one of the formats come up more often. */
static unsigned char interesting(void)
{
    static const unsigned char bytes[] =
        "\x00\x01\x7f\x80\xff.(){}[]tuseahqrjcQRbKMJXGN\x85\x86\x87\x88\x89\x8a\n\",:-0123456789";
    return below(2) ? bytes[below(sizeof bytes - 1)] : (unsigned char)below(256);
}

/* Changes, inserts, removes or doubles a few bytes; `data` has ROOM more than *bytes. */
static void mutate(unsigned char *data, size_t *bytes, size_t limit)
{
    size_t times = 1 + below(MUTATIONS_MAX);
    for (size_t i = 0; i < times; i++) {
        size_t at = below(*bytes), length = 1 + below(16);
        switch (below(5)) {
        case 0:
            if (*bytes > 0) data[at] ^= (unsigned char)(1 << below(8));
            break;
        case 1:
            if (*bytes > 0) data[at] = interesting();
            break;
        case 2: /* insert */
            if (*bytes + 1 > limit) break;
            memmove(data + at + 1, data + at, *bytes - at);
            data[at] = interesting();
            ++*bytes;
            break;
        case 3: /* remove */
            if (length > *bytes - at) length = *bytes - at;
            memmove(data + at, data + at + length, *bytes - at - length);
            *bytes -= length;
            break;
        default: /* copy from elsewhere */
            if (length > *bytes - at) length = *bytes - at;
            memmove(data + below(*bytes - length + 1), data + at, length);
        }
    }
}

/* Reads all that is contiguous and of a float type: nothing may lie outside of the file. */
static void read_all(const fb3_tensor_file *file)
{
    for (int i = 0; i < file->count; i++) {
        const fb3_tensor *tensor = &file->tensor[i];
        if (tensor->dtype > FB3_FILE_F64 || tensor->elements > ELEMENTS_MAX) continue;
        float *values = malloc((size_t)tensor->elements * sizeof *values + 1);
        assert_non_null(values);
        fb3_status status = fb3_tensor_read(file, tensor, 0, tensor->elements, values);
        if (status != FB3_OK) assert_refused(status, "not contiguous");
        free(values);
    }
}

static int opened, tried;

static void try_file(fb3_status (*open)(fb3_tensor_file **file, const char *path), const char *path)
{
    fb3_tensor_file *file;
    fb3_status status = open(&file, path);
    tried++;
    if (status != FB3_OK) {
        assert_refused(status, path);
        return;
    }
    opened++;
    read_all(file);
    (void)fb3_tensor_file_verify(file);
    fb3_tensor_file_close(file);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Calls `once` on mutants of `original` until the time is over. */
static void fuzz(const char *what, const unsigned char *original, size_t original_bytes,
                 void (*once)(unsigned char *data, size_t bytes))
{
    unsigned char *data = malloc(original_bytes + ROOM);
    assert_non_null(data);
    opened = tried = 0;
    for (double start = now(); now() - start < seconds_each;) {
        size_t bytes = original_bytes;
        memcpy(data, original, bytes);
        mutate(data, &bytes, original_bytes + ROOM);
        once(data, bytes);
    }
    print_message("%s: %d of %d mutants opened\n", what, opened, tried);
    assert_true(tried > 0);
    free(data);
}

/* --- safetensors: the header, with its right length, and the data of the original --------------------------------- */

static unsigned char *golden_data;
static size_t golden_data_bytes;

static void try_header(unsigned char *data, size_t bytes)
{
    const char *path = scratch_path("fuzz.safetensors");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < LENGTH_BYTES; i++) fputc((int)(bytes >> 8 * i & 0xff), file);
    fwrite(data, 1, bytes, file);
    fwrite(golden_data, 1, golden_data_bytes, file);
    assert_int_equal(fclose(file), 0);
    try_file(fb3_safetensors_open, path);
}

static void safetensors_headers(void **state)
{
    (void)state;
    static const char *const names[] = {"odd.safetensors", "plain/model.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t bytes, header = 0;
        unsigned char *file = read_whole(golden_path(names[i]), &bytes);
        for (int b = LENGTH_BYTES; b-- > 0;) header = header << 8 | file[b];
        golden_data = file + LENGTH_BYTES + header;
        golden_data_bytes = bytes - LENGTH_BYTES - header;
        fuzz(names[i], file + LENGTH_BYTES, header, try_header);
        free(file);
    }
}

/* --- pytorch_model.bin: the pickle inside an archive that is right, and the archive itself
 * ---------------------------- */

static zip_t *golden_archive;

/* All members of the golden archive, with another data.pkl. */
static void try_pickle(unsigned char *data, size_t bytes)
{
    enum { MEMBERS_MAX = 64 };
    static char contents[MEMBERS_MAX][1 << 12];
    member members[MEMBERS_MAX + 1];
    zip_int64_t count = zip_get_num_entries(golden_archive, 0);
    assert_true(count < MEMBERS_MAX);
    for (zip_int64_t i = 0; i < count; i++) {
        zip_stat_t about;
        assert_int_equal(zip_stat_index(golden_archive, (zip_uint64_t)i, 0, &about), 0);
        members[i] = (member){about.name, contents[i], about.size};
        if (strstr(about.name, "data.pkl")) {
            members[i] = (member){about.name, data, bytes};
            continue;
        }
        assert_true(about.size <= sizeof contents[i]);
        zip_file_t *from = zip_fopen_index(golden_archive, (zip_uint64_t)i, 0);
        assert_int_equal(zip_fread(from, contents[i], about.size), about.size);
        zip_fclose(from);
    }
    members[count] = (member){0};
    write_archive(scratch_path("fuzz.bin"), members);
    try_file(fb3_torch_zip_open, scratch_path("fuzz.bin"));
}

static void pickles(void **state)
{
    (void)state;
    static const char *const names[] = {"odd.bin", "nested/pytorch_model.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        golden_archive = zip_open(golden_path(names[i]), ZIP_RDONLY, NULL);
        assert_non_null(golden_archive);
        const char *pickle_name = NULL;
        zip_stat_t about;
        for (zip_uint64_t m = 0; !pickle_name; m++) {
            assert_int_equal(zip_stat_index(golden_archive, m, 0, &about), 0);
            if (strstr(about.name, "data.pkl")) pickle_name = about.name;
        }
        unsigned char *pickle = malloc(about.size);
        assert_non_null(pickle);
        zip_file_t *from = zip_fopen(golden_archive, pickle_name, 0);
        assert_int_equal(zip_fread(from, pickle, about.size), about.size);
        zip_fclose(from);
        fuzz(names[i], pickle, about.size, try_pickle);
        free(pickle);
        zip_discard(golden_archive);
    }
}

static void try_archive(unsigned char *data, size_t bytes)
{
    write_file(scratch_path("fuzz.bin"), data, bytes);
    try_file(fb3_torch_zip_open, scratch_path("fuzz.bin"));
}

static void archives(void **state)
{
    (void)state;
    size_t bytes;
    unsigned char *file = read_whole(golden_path("odd.bin"), &bytes);
    fuzz("odd.bin as an archive", file, bytes, try_archive);
    free(file);
}

int main(void)
{
    const char *seconds = getenv("FB3_FUZZ_SECONDS"), *seed = getenv("FB3_FUZZ_SEED");
    seconds_each = (seconds ? atof(seconds) : 5.0) / 5; /* there are five sources of mutants */
    random_state = seed ? strtoull(seed, NULL, 10) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_headers),
        cmocka_unit_test(pickles),
        cmocka_unit_test(archives),
    };
    return cmocka_run_group_tests(tests, NULL, clear_scratch);
}
