/* See data_fixture.h. */
#include "data_fixture.h"

#include <dirent.h>
#include <unistd.h>

enum { PATHS = 8 };
static char folder[PATH_BYTES];

int make_scratch(void **state)
{
    (void)state;
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/fb3-data-XXXXXX", temporary ? temporary : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

int remove_scratch(void **state)
{
    (void)state;
    DIR *entries = opendir(folder);
    if (!entries) return -1;
    for (struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
        if (entry->d_name[0] != '.') (void)unlink(scratch_path(entry->d_name));
    }
    (void)closedir(entries);
    return rmdir(folder);
}

const char *scratch_path(const char *name)
{
    static char paths[PATHS][2 * PATH_BYTES];
    static int next;
    char *path = paths[next++ % PATHS];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

void write_bytes(const char *name, const void *data, size_t bytes)
{
    FILE *file = fopen(scratch_path(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

char *read_bytes(const char *name, size_t *bytes)
{
    char *data;
    assert_ok(fb3_file_read(scratch_path(name), SIZE_MAX / 2, &data, bytes));
    return data;
}

char *read_text(const char *name)
{
    size_t bytes;
    return read_bytes(name, &bytes);
}

void check_ok(fb3_status status, const char *call, const char *file, int line)
{
    if (status == FB3_OK) return;
    print_error("%s failed: %s\n", call, fb3_error_text());
    _fail(file, line);
}

void check_fails(fb3_status status, fb3_status code, const char *part, const char *call, const char *file, int line)
{
    const char *text = fb3_error_text();
    bool good = status == code && strstr(text, part) && !strchr(text, '\n') && text[0];
    if (good) return;
    print_error("%s gave %d \"%s\" instead of %d with \"%s\" in one line\n", call, (int)status,
                status == FB3_OK ? "" : text, (int)code, part);
    _fail(file, line);
}

fb3_dataset_options make_options(fb3_strings *columns, int targets)
{
    *columns = (fb3_strings){0};
    for (int y = 0; y < targets; y++) {
        const char name[2] = {(char)('a' + y), 0};
        assert_ok(fb3_strings_add(columns, name));
    }
    return (fb3_dataset_options){.id_column = "text_id",
                                 .text_column = "full_text",
                                 .label_columns = columns,
                                 .max_length = 512,
                                 .max_samples = FB3_UNSET_INT};
}

fb3_status prepare_file(const char *csv_path, const char *h5_path, const fb3_tokenizer *tokenizer,
                        const fb3_dataset_options *options, fb3_dataset_report *report)
{
    char *path = (char *)csv_path;
    return fb3_dataset_prepare(&(fb3_strings){.item = &path, .count = 1}, h5_path, tokenizer, options, report);
}
