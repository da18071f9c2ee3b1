#include "git.h"

#include "fb3/file.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST_REF = 4096, LARGEST_PACKED_REFS = 64 << 20, MOST_PARENTS = 64, SHORT_COMMIT = 40, LONG_COMMIT = 64 };

/* The first line of folder/name, or NULL. */
static char *first_line(const char *folder, const char *name)
{
    char *path = fb3_path_join(folder, name), *text = NULL;
    size_t bytes;
    if (path && fb3_file_exists(path) && fb3_file_read(path, LARGEST_REF, &text, &bytes) == FB3_OK)
        text[strcspn(text, "\r\n")] = 0;
    free(path);
    return text;
}

static bool take_commit(const char *text, char commit[FB3_COMMIT_BYTES])
{
    size_t digits = strspn(text, "0123456789abcdef");
    if (digits != SHORT_COMMIT && digits != LONG_COMMIT) return false;
    memcpy(commit, text, digits);
    commit[digits] = 0;
    return true;
}

/* A line "<commit> <ref>" of packed-refs. */
static bool find_packed(const char *folder, const char *ref, char commit[FB3_COMMIT_BYTES])
{
    char *path = fb3_path_join(folder, "packed-refs"), *text = NULL, *save = NULL;
    size_t bytes;
    bool found = false;
    if (path && fb3_file_exists(path) && fb3_file_read(path, LARGEST_PACKED_REFS, &text, &bytes) == FB3_OK) {
        for (char *line = strtok_r(text, "\n", &save); line && !found; line = strtok_r(NULL, "\n", &save)) {
            const char *name = strchr(line, ' ');
            found = name && strcmp(name + 1, ref) == 0 && take_commit(line, commit);
        }
    }
    free(path);
    free(text);
    return found;
}

static bool resolve(const char *folder, const char *ref, char commit[FB3_COMMIT_BYTES])
{
    char *line = first_line(folder, ref);
    bool found = line && take_commit(line, commit);
    free(line);
    return found || find_packed(folder, ref, commit);
}

/* Of a repository's folder. A linked working tree has a HEAD of its own, and its refs where "commondir" says. */
static bool commit_of(const char *git, char commit[FB3_COMMIT_BYTES])
{
    static const char REF[] = "ref: ";
    char *head = first_line(git, "HEAD"), *common = first_line(git, "commondir"), *shared = NULL;
    bool found = false;
    if (common) shared = common[0] == '/' ? strdup(common) : fb3_path_join(git, common);
    if (head && strncmp(head, REF, strlen(REF)) != 0) {
        found = take_commit(head, commit);
    } else if (head) {
        const char *ref = head + strlen(REF);
        found = resolve(git, ref, commit) || (shared && resolve(shared, ref, commit));
    }
    free(head);
    free(common);
    free(shared);
    return found;
}

/* The repository's folder where `directory` is the top of a working tree; else NULL. */
static char *repository_of(const char *directory)
{
    static const char LINK[] = "gitdir: ";
    char *git = fb3_path_join(directory, ".git");
    if (git && fb3_folder_exists(git)) return git;
    free(git);
    char *line = first_line(directory, ".git"), *target = NULL;
    if (line && strncmp(line, LINK, strlen(LINK)) == 0) {
        const char *path = line + strlen(LINK);
        target = path[0] == '/' ? strdup(path) : fb3_path_join(directory, path);
    }
    free(line);
    return target;
}

bool fb3_git_commit(const char *directory, char commit[FB3_COMMIT_BYTES])
{
    bool found = false;
    char *at = realpath(directory, NULL);
    commit[0] = 0;
    for (int i = 0; at && !found && i < MOST_PARENTS; i++) {
        char *git = repository_of(at), *slash = strrchr(at, '/');
        if (git) found = commit_of(git, commit);
        bool top = git || !slash || slash == at;
        free(git);
        if (top) break;
        *slash = 0;
    }
    free(at);
    if (!found) commit[0] = 0;
    return found;
}
