/* Files, folders, hashes and node memory. fsync and rename go through the linker's --wrap, so that their order is seen
 * and their failures can be ordered. */
#include "fb3/file.h"
#include "fb3/hash.h"
#include "fb3/node_memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int __real_fsync(int file);
int __wrap_fsync(int file);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);

/* What was called: f (fsync of a file), d (of a folder), r (rename); and which call fails with which errno. */
static struct {
    char calls[16];
    char failing;
    int error;
} watched;

static int watch(char call)
{
    size_t length = strlen(watched.calls);
    if (length + 1 < sizeof watched.calls) watched.calls[length] = call;
    if (watched.failing != call) return 0;
    errno = watched.error;
    return -1;
}

int __wrap_fsync(int file)
{
    struct stat about;
    if (fstat(file, &about) != 0) return -1;
    if (watch(S_ISDIR(about.st_mode) ? 'd' : 'f') != 0) return -1;
    return __real_fsync(file);
}

int __wrap_rename(const char *from, const char *to)
{
    return watch('r') == 0 ? __real_rename(from, to) : -1;
}

static void watch_from_now(char failing, int error)
{
    memset(&watched, 0, sizeof watched);
    watched.failing = failing;
    watched.error = error;
}

static char folder[] = "/tmp/fb3-file-XXXXXX";

static int enter(void **state)
{
    (void)state;
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    watch_from_now(0, 0);
    return chdir("/") == 0 && fb3_folder_remove(folder) == FB3_OK ? 0 : -1;
}

static void check_content(const char *path, const char *expected)
{
    char *data = NULL;
    size_t bytes = 0;
    assert_int_equal(fb3_file_read(path, 1000, &data, &bytes), FB3_OK);
    assert_int_equal(bytes, strlen(expected));
    assert_string_equal(data, expected);
    free(data);
}

static void writing_flushes_renames_and_flushes_the_folder(void **state)
{
    (void)state;
    watch_from_now(0, 0);
    assert_int_equal(fb3_file_write("a.txt", "one", 3), FB3_OK);
    assert_string_equal(watched.calls, "frd");
    check_content("a.txt", "one");
    assert_false(fb3_file_exists("a.txt.tmp"));
    assert_int_equal(fb3_file_write("a.txt", "", 0), FB3_OK);
    check_content("a.txt", "");
    char path[sizeof folder + 16];
    snprintf(path, sizeof path, "%s/a.txt", folder);
    assert_int_equal(fb3_file_write(path, "absolute", 8), FB3_OK);
    check_content("a.txt", "absolute");
}

static void a_failure_leaves_the_old_file(void **state)
{
    (void)state;
    assert_int_equal(fb3_file_write("b.txt", "old", 3), FB3_OK);
    watch_from_now('f', EIO);
    assert_int_equal(fb3_file_write("b.txt", "new", 3), FB3_FAILED);
    assert_non_null(strstr(fb3_error_text(), "b.txt"));
    assert_string_equal(watched.calls, "f");
    check_content("b.txt", "old");
    assert_false(fb3_file_exists("b.txt.tmp"));
    watch_from_now('r', ENOSPC);
    assert_int_equal(fb3_file_write("b.txt", "new", 3), FB3_FAILED);
    check_content("b.txt", "old");
    assert_false(fb3_file_exists("b.txt.tmp"));
    watch_from_now('d', EIO);
    assert_int_equal(fb3_file_write("b.txt", "new", 3), FB3_FAILED);
    watch_from_now('d', EINVAL); /* a file system that flushes no folders */
    assert_int_equal(fb3_file_write("b.txt", "newer", 5), FB3_OK);
    check_content("b.txt", "newer");
    watch_from_now(0, 0);
}

static void a_left_over_temporary_is_overwritten(void **state)
{
    (void)state;
    assert_int_equal(fb3_file_write("c.txt.tmp", "half of a kil", 13), FB3_OK);
    assert_int_equal(fb3_file_write("c.txt", "whole", 5), FB3_OK);
    check_content("c.txt", "whole");
    assert_false(fb3_file_exists("c.txt.tmp"));
}

static int files_here(void)
{
    int count = 0;
    DIR *entries = opendir(".");
    assert_non_null(entries);
    while (readdir(entries)) count++;
    closedir(entries);
    return count;
}

/* Two writers of one path, each 200 times: each succeeds always, and a reader finds the one's content or the other's.
 */
static void several_processes_may_write_a_shared_file(void **state)
{
    (void)state;
    enum { TIMES = 200, BYTES = 100000, WRITERS = 2 };
    static char content[BYTES];
    const int before = files_here();
    pid_t writer[WRITERS];
    for (int w = 0; w < WRITERS; w++) {
        memset(content, 'a' + w, BYTES);
        assert_int_equal(fb3_file_write_shared("shared.html", content, BYTES), FB3_OK);
        writer[w] = fork();
        assert_true(writer[w] >= 0);
        if (writer[w] == 0) {
            for (int i = 0; i < TIMES; i++)
                if (fb3_file_write_shared("shared.html", content, BYTES) != FB3_OK) _exit(1);
            _exit(0);
        }
    }
    for (int left = WRITERS; left > 0;) {
        int result = 0;
        if (waitpid(-1, &result, WNOHANG) > 0) {
            assert_int_equal(result, 0);
            left--;
        }
        char *data;
        size_t bytes;
        assert_int_equal(fb3_file_read("shared.html", BYTES, &data, &bytes), FB3_OK);
        assert_int_equal(bytes, BYTES);
        for (size_t i = 1; i < bytes; i++) assert_int_equal(data[i], data[0]);
        free(data);
    }
    assert_int_equal(files_here(), before + 1);
}

static void temporaries_are_removed_by_name_or_all(void **state)
{
    (void)state;
    const char *names[] = {"x/page.html.tmp", "x/page.html.0123.tmp", "x/pages.html.tmp", "x/page.htmltmp",
                           "x/page.html"};
    const bool stays_one[] = {false, false, true, true, true}, stays_all[] = {false, false, false, true, true};
    assert_int_equal(fb3_folder_make("x"), FB3_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_int_equal(fb3_file_write(names[i], "", 0), FB3_OK);
    fb3_file_remove_temporaries("x", "page.html");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_true(fb3_file_exists(names[i]) == stays_one[i]);
    fb3_file_remove_temporaries("x", NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_true(fb3_file_exists(names[i]) == stays_all[i]);
    fb3_file_remove_temporaries("no such folder", NULL);
}

static void publish_needs_its_temporary_and_folder(void **state)
{
    (void)state;
    assert_int_equal(fb3_file_publish("missing.tmp", "missing"), FB3_FAILED);
    assert_false(fb3_file_exists("missing"));
    assert_int_equal(fb3_file_write("here.tmp", "x", 1), FB3_OK);
    assert_int_equal(fb3_file_publish("here.tmp", "no/such/folder/x"), FB3_INPUT);
    assert_false(fb3_file_exists("here.tmp"));
    assert_int_equal(fb3_file_write("no/such/folder/x", "x", 1), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "no/such/folder/x"));
}

static void reading_keeps_to_the_limit(void **state)
{
    (void)state;
    char *data = (char *)1;
    size_t bytes = 1;
    assert_int_equal(fb3_file_write("d.bin", "a\0b", 3), FB3_OK);
    assert_int_equal(fb3_file_read("d.bin", 3, &data, &bytes), FB3_OK);
    assert_int_equal(bytes, 3);
    assert_memory_equal(data, "a\0b\0", 4);
    free(data);
    assert_int_equal(fb3_file_read("d.bin", 2, &data, &bytes), FB3_INPUT);
    assert_null(data);
    assert_non_null(strstr(fb3_error_text(), "d.bin"));
    assert_int_equal(fb3_file_read("nowhere", 2, &data, &bytes), FB3_INPUT);
    assert_int_equal(fb3_file_read(".", 100000, &data, &bytes), FB3_INPUT);
    assert_int_equal(fb3_file_read("/dev/null", 100000, &data, &bytes), FB3_INPUT);
    assert_int_equal(mkfifo("pipe", 0600), 0);
    assert_int_equal(fb3_file_read("pipe", 100000, &data, &bytes), FB3_INPUT); /* and does not wait */
    assert_null(data);
}

static void folders_are_made_and_removed_whole(void **state)
{
    (void)state;
    assert_int_equal(fb3_folder_make("x/y//z/"), FB3_OK);
    assert_int_equal(fb3_folder_make("x/y/z"), FB3_OK);
    assert_true(fb3_folder_exists("x/y/z"));
    assert_false(fb3_file_exists("x/y/z"));
    assert_int_equal(fb3_file_write("x/y/file", "1", 1), FB3_OK);
    assert_true(fb3_file_exists("x/y/file"));
    assert_false(fb3_folder_exists("x/y/file"));
    assert_int_equal(fb3_folder_make("x/y/file/w"), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "x/y/file: "));
    assert_int_equal(fb3_folder_make(""), FB3_INPUT);
    assert_int_equal(fb3_file_write("kept", "1", 1), FB3_OK);
    assert_int_equal(symlink("../kept", "x/link"), 0);
    assert_int_equal(fb3_folder_remove("x"), FB3_OK);
    assert_false(fb3_folder_exists("x"));
    assert_true(fb3_file_exists("kept"));
    assert_int_equal(fb3_folder_remove("x"), FB3_OK);
}

static void paths_join(void **state)
{
    (void)state;
    char *joined[] = {fb3_path_join("a", "b"), fb3_path_join("a/", "b"), fb3_path_join("/", "b"),
                      fb3_format("%s-%d", "fold", 3)};
    static const char *const EXPECTED[] = {"a/b", "a/b", "/b", "fold-3"};
    for (int i = 0; i < 4; i++) {
        assert_string_equal(joined[i], EXPECTED[i]);
        free(joined[i]);
    }
}

/* FIPS 180-2, appendix B, and the empty message. */
static void sha256_gives_the_known_digests(void **state)
{
    (void)state;
    static const char ABC[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    static const char EMPTY[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    static const char MILLION[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    char hex[FB3_SHA256_HEX];
    assert_int_equal(fb3_sha256_memory("abc", 3, hex), FB3_OK);
    assert_string_equal(hex, ABC);
    assert_int_equal(fb3_sha256_memory("", 0, hex), FB3_OK);
    assert_string_equal(hex, EMPTY);
    enum { MILLION_BYTES = 1000000 };
    char *a = malloc(MILLION_BYTES);
    memset(a, 'a', MILLION_BYTES);
    fb3_sha256 *hash = NULL;
    assert_int_equal(fb3_sha256_begin(&hash), FB3_OK);
    for (size_t done = 0; done < MILLION_BYTES; done += MILLION_BYTES / 8)
        fb3_sha256_update(hash, a, MILLION_BYTES / 8);
    fb3_sha256_end(hash, hex);
    assert_string_equal(hex, MILLION);
    assert_int_equal(fb3_file_write("million", a, MILLION_BYTES), FB3_OK);
    free(a);
    assert_int_equal(fb3_sha256_file("million", hex), FB3_OK);
    assert_string_equal(hex, MILLION);
    assert_int_equal(fb3_sha256_file("nowhere", hex), FB3_INPUT);
    assert_string_equal(hex, "");
    assert_int_equal(fb3_sha256_file(".", hex), FB3_INPUT);
}

static void node_memory_is_aligned_and_owned(void **state)
{
    (void)state;
    fb3_node_memory memory;
    assert_int_equal(fb3_node_memory_private(&memory), FB3_OK);
    assert_true(memory.writer);
    static const size_t SIZES[] = {0, 1, 63, 64, 65, 100000};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        void *block = NULL;
        assert_int_equal(memory.allocate(memory.context, SIZES[i], &block), FB3_OK);
        assert_int_equal((uintptr_t)block % 64, 0);
        memset(block, 1, SIZES[i]);
    }
    void *block = (void *)1;
    assert_int_equal(memory.allocate(memory.context, SIZE_MAX, &block), FB3_FAILED);
    assert_null(block);
    assert_int_equal(memory.publish(memory.context, FB3_INPUT), FB3_INPUT);
    assert_int_equal(memory.publish(memory.context, FB3_OK), FB3_OK);
    fb3_node_memory_private_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing_flushes_renames_and_flushes_the_folder),
        cmocka_unit_test(a_failure_leaves_the_old_file),
        cmocka_unit_test(a_left_over_temporary_is_overwritten),
        cmocka_unit_test(several_processes_may_write_a_shared_file),
        cmocka_unit_test(temporaries_are_removed_by_name_or_all),
        cmocka_unit_test(publish_needs_its_temporary_and_folder),
        cmocka_unit_test(reading_keeps_to_the_limit),
        cmocka_unit_test(folders_are_made_and_removed_whole),
        cmocka_unit_test(paths_join),
        cmocka_unit_test(sha256_gives_the_known_digests),
        cmocka_unit_test(node_memory_is_aligned_and_owned),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
