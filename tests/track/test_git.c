/* The commit, from the files that git keeps. */
#include "../../src/track/git.h"

#include "fb3/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define A "0123456789abcdef0123456789abcdef01234567"
#define B "89abcdef0123456789abcdef0123456789abcdef"

static char folder[] = "/tmp/fb3-git-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(fb3_folder_make(path), FB3_OK);
    *slash = '/';
    assert_int_equal(fb3_file_write(path, text, strlen(text)), FB3_OK);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return fb3_folder_remove(folder) == FB3_OK ? 0 : -1;
}

static void expect(const char *below, const char *commit)
{
    char path[256], got[FB3_COMMIT_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, below);
    assert_int_equal(fb3_git_commit(path, got), commit[0] != 0);
    assert_string_equal(got, commit);
}

static void heads(void **state)
{
    (void)state;
    put("tree/sub/file", "");
    put("tree/.git/HEAD", "ref: refs/heads/main\n");
    expect("tree", ""); /* no commit yet */
    put("tree/.git/packed-refs", "# pack-refs with: peeled\n" B " refs/heads/mainly\n" A " refs/heads/main\n^" B "\n");
    expect("tree", A);
    put("tree/.git/refs/heads/main", B "\n");
    expect("tree", B); /* a loose ref is newer than a packed one */
    expect("tree/sub", B);
    put("tree/.git/HEAD", A "\n"); /* detached */
    expect("tree/sub", A);
    put("tree/.git/HEAD", "nonsense\n");
    expect("tree", "");
}

/* A linked working tree: .git is a file, refs are in the common folder. */
static void linked_trees(void **state)
{
    (void)state;
    put("main/.git/HEAD", "ref: refs/heads/main\n");
    put("main/.git/refs/heads/topic", A "\n");
    put("main/.git/worktrees/linked/HEAD", "ref: refs/heads/topic\n");
    put("main/.git/worktrees/linked/commondir", "../..\n");
    put("linked/.git", "gitdir: ../main/.git/worktrees/linked\n");
    expect("linked", A);
}

static void no_tree(void **state)
{
    (void)state;
    put("plain/file", "");
    put("tree2/.git/HEAD", "ref: refs/heads/main\n");
    expect("nowhere", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(heads), cmocka_unit_test(linked_trees),
                                       cmocka_unit_test(no_tree)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
