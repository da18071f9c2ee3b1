/* RFC 4180 CSV, one record in memory at a time (include/fb3/csv.h).
 *
 * A record is read by a machine of four states:
 *
 *     FIELD_START --"--> QUOTED --"--> QUOTE_CLOSED --"--> QUOTED (a doubled quote is one quote)
 *         |                               |
 *         +--other--> UNQUOTED            +--comma or line end--> the field is done; anything else is an error
 *
 * Where the RFC is silent this follows Python's csv module, the reader that wrote or will read these files: a record
 * ends at LF, CRLF or a lone CR; a quote inside an unquoted field is an ordinary character; empty lines are skipped. */
#include "fb3/csv.h"

#include "buffer.h"
#include "fb3/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* MAX_COLUMNS bounds the comparison of every name with every other. */
enum { READ_BYTES = 1 << 16, LISTED_NAMES_BYTES = 400, MAX_COLUMNS = 10000, END_OF_FILE = -1 };

typedef struct field {
    size_t start, bytes; /* in csv->record; a 0 byte follows */
} field;

struct fb3_csv {
    char *path;
    FILE *file;
    char *input; /* READ_BYTES */
    size_t input_at, input_bytes;
    bool read_failed;

    fb3_buffer record_text;
    field *fields;
    int count, capacity;
    int64_t record, record_line; /* of the current record */
    int64_t line;                /* of the next byte */

    char **names;
    int columns; /* 0 until the header is read */
};

typedef enum { FIELD_START, UNQUOTED, QUOTED, QUOTE_CLOSED } reader_state;

static int peek_byte(fb3_csv *csv)
{
    if (csv->input_at == csv->input_bytes) {
        csv->input_at = 0;
        csv->input_bytes = fread(csv->input, 1, READ_BYTES, csv->file);
        if (csv->input_bytes == 0) {
            csv->read_failed = ferror(csv->file) != 0;
            return END_OF_FILE;
        }
    }
    return (unsigned char)csv->input[csv->input_at];
}

/* The next byte, with CRLF and a lone CR as LF: for use outside quotes. */
static int next_byte(fb3_csv *csv)
{
    int byte = peek_byte(csv);
    if (byte == END_OF_FILE) return byte;
    csv->input_at++;
    if (byte == '\r') {
        if (peek_byte(csv) == '\n') csv->input_at++;
        byte = '\n';
    }
    if (byte == '\n') csv->line++;
    return byte;
}

/* The next byte as it is: inside quotes line ends belong to the field. */
static int next_quoted_byte(fb3_csv *csv)
{
    int byte = peek_byte(csv);
    if (byte == END_OF_FILE) return byte;
    csv->input_at++;
    if (byte == '\n' || (byte == '\r' && peek_byte(csv) != '\n')) csv->line++;
    return byte;
}

/* "record 3" or, before the first, "the header": how messages name where we are. */
static const char *record_name(const fb3_csv *csv, char name[32])
{
    if (csv->columns == 0) return "the header";
    snprintf(name, 32, "record %lld", (long long)csv->record);
    return name;
}

/* "'full_text'" or, where there is no such name, "3": how messages name a column. */
static const char *column_label(const fb3_csv *csv, int column, char label[64])
{
    if (column < csv->columns)
        snprintf(label, 64, "'%.56s'", csv->names[column]);
    else
        snprintf(label, 64, "%d", column + 1);
    return label;
}

static fb3_status fail_in_field(const fb3_csv *csv, int column, int64_t line, const char *what)
{
    char where[32], label[64];
    return fb3_fail(FB3_INPUT, "%s: %s, column %s (line %lld): %s", csv->path, record_name(csv, where),
                    column_label(csv, column, label), (long long)line, what);
}

static fb3_status check_field(const fb3_csv *csv, const char *text, size_t bytes)
{
    const char *nul = memchr(text, 0, bytes);
    if (nul) return fail_in_field(csv, csv->count, csv->record_line, "a NUL byte; remove it");
    size_t valid = fb3_utf8_valid(text, bytes);
    if (valid == bytes) return FB3_OK;
    char what[96];
    snprintf(what, sizeof what, "byte %zu of the field (0x%02X) is not valid UTF-8; save the file as UTF-8", valid + 1,
             (unsigned char)text[valid]);
    return fail_in_field(csv, csv->count, csv->record_line, what);
}

static fb3_status end_field(fb3_csv *csv, size_t start)
{
    size_t bytes = csv->record_text.bytes - start;
    FB3_TRY(check_field(csv, csv->record_text.data + start, bytes));
    if (csv->count == csv->capacity) {
        int capacity = csv->capacity ? 2 * csv->capacity : 16;
        field *fields = realloc(csv->fields, (size_t)capacity * sizeof *fields);
        FB3_REQUIRE(fields, FB3_FAILED, "%s: out of memory for %d columns; use fewer", csv->path, capacity);
        csv->fields = fields;
        csv->capacity = capacity;
    }
    csv->fields[csv->count++] = (field){start, bytes};
    return fb3_buffer_append_byte(&csv->record_text, 0);
}

static fb3_status skip_empty_lines(fb3_csv *csv)
{
    int byte = peek_byte(csv);
    while (byte == '\n' || byte == '\r') {
        next_byte(csv);
        byte = peek_byte(csv);
    }
    FB3_REQUIRE(!csv->read_failed, FB3_FAILED, "%s: cannot be read (%s); check the file system", csv->path,
                strerror(errno));
    return FB3_OK;
}

/* Reads the fields of one record into csv->fields; none are there at the end of the file. */
static fb3_status read_record(fb3_csv *csv)
{
    csv->count = 0;
    csv->record_text.bytes = 0;
    FB3_TRY(skip_empty_lines(csv));
    csv->record_line = csv->line;
    if (peek_byte(csv) == END_OF_FILE) return FB3_OK;

    reader_state state = FIELD_START;
    size_t start = 0;
    int64_t quote_line = csv->line;
    for (;;) {
        FB3_TRY(fb3_buffer_reserve(&csv->record_text, 2)); /* a byte and the 0 behind a field */
        int byte = state == QUOTED ? next_quoted_byte(csv) : next_byte(csv);
        FB3_REQUIRE(!csv->read_failed, FB3_FAILED, "%s: cannot be read to its end (%s); check the file system",
                    csv->path, strerror(errno));
        if (state == QUOTED) {
            if (byte == END_OF_FILE)
                return fail_in_field(csv, csv->count, quote_line,
                                     "a quote opens here and never closes; close it, or double the quotes in the text");
            if (byte == '"')
                state = QUOTE_CLOSED;
            else
                FB3_TRY(fb3_buffer_append_byte(&csv->record_text, (char)byte));
        } else if (byte == ',' || byte == '\n' || byte == END_OF_FILE) {
            FB3_TRY(end_field(csv, start));
            if (byte != ',') return FB3_OK;
            start = csv->record_text.bytes;
            state = FIELD_START;
        } else if (byte == '"' && state == FIELD_START) {
            quote_line = csv->line;
            state = QUOTED;
        } else if (byte == '"' && state == QUOTE_CLOSED) {
            FB3_TRY(fb3_buffer_append_byte(&csv->record_text, '"'));
            state = QUOTED;
        } else if (state == QUOTE_CLOSED) {
            return fail_in_field(csv, csv->count, csv->line,
                                 "text after a closing quote; double the quotes that belong to the text");
        } else {
            FB3_TRY(fb3_buffer_append_byte(&csv->record_text, (char)byte));
            state = UNQUOTED;
        }
    }
}

/* Skips a UTF-8 byte order mark; names a UTF-16 one, which spreadsheets write, before it becomes "invalid UTF-8". */
static fb3_status skip_byte_order_mark(fb3_csv *csv)
{
    static const char utf8_mark[] = "\xEF\xBB\xBF", utf16_little[] = "\xFF\xFE", utf16_big[] = "\xFE\xFF";
    peek_byte(csv);
    bool utf16 = csv->input_bytes >= 2 && (!memcmp(csv->input, utf16_little, 2) || !memcmp(csv->input, utf16_big, 2));
    FB3_REQUIRE(!utf16, FB3_INPUT, "%s: is UTF-16; save it as UTF-8", csv->path);
    if (csv->input_bytes >= 3 && !memcmp(csv->input, utf8_mark, 3)) csv->input_at = 3;
    return FB3_OK;
}

static fb3_status read_header(fb3_csv *csv)
{
    FB3_TRY(skip_byte_order_mark(csv));
    FB3_TRY(read_record(csv));
    FB3_REQUIRE(csv->count > 0, FB3_INPUT, "%s: is empty; a header line with the columns' names is needed", csv->path);
    FB3_REQUIRE(csv->count <= MAX_COLUMNS, FB3_INPUT, "%s: has %d columns; at most %d are read", csv->path, csv->count,
                MAX_COLUMNS);
    csv->names = calloc((size_t)csv->count, sizeof *csv->names);
    FB3_REQUIRE(csv->names, FB3_FAILED, "%s: out of memory for %d column names", csv->path, csv->count);
    int columns = csv->count;
    for (int i = 0; i < columns; i++) {
        const char *name = csv->record_text.data + csv->fields[i].start;
        FB3_REQUIRE(*name, FB3_INPUT, "%s: column %d has no name; name it, or write the file without an index column",
                    csv->path, i + 1);
        csv->names[i] = strdup(name);
        csv->columns = csv->names[i] ? i + 1 : i; /* fb3_csv_close frees so many */
        FB3_REQUIRE(csv->names[i], FB3_FAILED, "%s: out of memory for column names", csv->path);
        FB3_REQUIRE(fb3_csv_column(csv, name) == i, FB3_INPUT, "%s: two columns are named '%s'; rename one", csv->path,
                    name);
    }
    return FB3_OK;
}

static fb3_status open_file(fb3_csv *csv, const char *path)
{
    csv->line = 1;
    csv->path = strdup(path);
    csv->input = malloc(READ_BYTES);
    FB3_REQUIRE(csv->path && csv->input, FB3_FAILED, "%s: out of memory", path);
    csv->file = fopen(path, "rb");
    FB3_REQUIRE(csv->file, FB3_INPUT, "%s: cannot be opened (%s); check the path", path, strerror(errno));
    struct stat info;
    FB3_REQUIRE(fstat(fileno(csv->file), &info) == 0, FB3_FAILED, "%s: %s", path, strerror(errno));
    FB3_REQUIRE(!S_ISDIR(info.st_mode), FB3_INPUT, "%s: is a directory; name a CSV file", path);
    return FB3_OK;
}

fb3_status fb3_csv_open(fb3_csv **csv, const char *path)
{
    *csv = NULL;
    fb3_csv *opened = calloc(1, sizeof *opened);
    FB3_REQUIRE(opened, FB3_FAILED, "%s: out of memory", path);
    fb3_status status;
    FB3_TRY_GOTO(open_file(opened, path), done);
    FB3_TRY_GOTO(read_header(opened), done);
    opened->count = 0; /* the header is not a record */
    *csv = opened;
    opened = NULL;
done:
    fb3_csv_close(opened);
    return status;
}

void fb3_csv_close(fb3_csv *csv)
{
    if (!csv) return;
    for (int i = 0; i < csv->columns; i++) free(csv->names[i]);
    free(csv->names);
    free(csv->fields);
    fb3_buffer_free(&csv->record_text);
    if (csv->file) fclose(csv->file);
    free(csv->input);
    free(csv->path);
    free(csv);
}

int fb3_csv_column(const fb3_csv *csv, const char *name)
{
    for (int i = 0; i < csv->columns; i++)
        if (!strcmp(csv->names[i], name)) return i;
    return -1;
}

int fb3_csv_columns(const fb3_csv *csv)
{
    return csv->columns;
}

const char *fb3_csv_column_name(const fb3_csv *csv, int column)
{
    return csv->names[column];
}

fb3_status fb3_csv_need_column(const fb3_csv *csv, const char *name, int *column)
{
    *column = fb3_csv_column(csv, name);
    if (*column >= 0) return FB3_OK;
    char names[LISTED_NAMES_BYTES] = "";
    size_t used = 0;
    for (int i = 0; i < csv->columns && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", csv->names[i]);
    const char *more = used >= sizeof names ? "..." : "";
    return fb3_fail(FB3_INPUT, "%s: has no column '%s'; its columns are %s%s", csv->path, name, names, more);
}

fb3_status fb3_csv_next(fb3_csv *csv, bool *more)
{
    *more = false;
    csv->record++;
    FB3_TRY(read_record(csv));
    if (csv->count == 0) {
        csv->record--;
        return FB3_OK;
    }
    FB3_REQUIRE(csv->count == csv->columns, FB3_INPUT,
                "%s: record %lld (line %lld) has %d field%s where the header has %d; quote fields that hold commas",
                csv->path, (long long)csv->record, (long long)csv->record_line, csv->count, csv->count == 1 ? "" : "s",
                csv->columns);
    *more = true;
    return FB3_OK;
}

const char *fb3_csv_field(const fb3_csv *csv, int column, int64_t *bytes)
{
    const field *f = &csv->fields[column];
    if (bytes) *bytes = (int64_t)f->bytes;
    return csv->record_text.data + f->start;
}

int64_t fb3_csv_record(const fb3_csv *csv)
{
    return csv->record;
}

int64_t fb3_csv_line(const fb3_csv *csv)
{
    return csv->record_line;
}

const char *fb3_csv_path(const fb3_csv *csv)
{
    return csv->path;
}

void fb3_csv_write_field(FILE *file, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"') fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

fb3_status fb3_csv_number(const fb3_csv *csv, int column, float *value)
{
    int64_t bytes;
    const char *text = fb3_csv_field(csv, column, &bytes);
    char *end;
    double number = strtod(text, &end);
    FB3_REQUIRE(end != text && *end == 0 && isfinite(number), FB3_INPUT,
                "%s: record %lld: %s is \"%.40s\", not a number", fb3_csv_path(csv), (long long)fb3_csv_record(csv),
                fb3_csv_column_name(csv, column), text);
    *value = (float)number;
    return FB3_OK;
}
