/* RFC 4180 CSV: quoted fields with newlines and doubled quotes, CRLF or LF, a UTF-8 byte order mark, columns in any
 * order. Streams: memory is one record, whatever the size of the file. */
#ifndef FB3_CSV_H
#define FB3_CSV_H

#include "fb3/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct fb3_csv fb3_csv;

/* Opens `path` and reads the header. FB3_INPUT: not there, empty, invalid UTF-8, an empty or repeated column name. */
fb3_status fb3_csv_open(fb3_csv **csv, const char *path);
void fb3_csv_close(fb3_csv *csv); /* NULL is fine */

/* The position of a column, or -1. */
int fb3_csv_column(const fb3_csv *csv, const char *name);
int fb3_csv_columns(const fb3_csv *csv);
const char *fb3_csv_column_name(const fb3_csv *csv, int column);

/* Like fb3_csv_column, but FB3_INPUT naming the file, the missing column and the columns that are there. */
fb3_status fb3_csv_need_column(const fb3_csv *csv, const char *name, int *column);

/* Reads the next record; *more is false at the end of the file. FB3_INPUT, naming file, record and line: a quote that
 * never closes, text after a closing quote, a wrong number of fields, invalid UTF-8 (with the column's name), a NUL. */
fb3_status fb3_csv_next(fb3_csv *csv, bool *more);

/* A field of the current record: UTF-8, 0-terminated, *bytes long; valid until the next call of fb3_csv_next. */
const char *fb3_csv_field(const fb3_csv *csv, int column, int64_t *bytes);

/* A field that must be a finite number. FB3_INPUT naming file, record and column. */
fb3_status fb3_csv_number(const fb3_csv *csv, int column, float *value);

int64_t fb3_csv_record(const fb3_csv *csv); /* 1-based number of the current record, the header not counted */
int64_t fb3_csv_line(const fb3_csv *csv);   /* 1-based line on which the current record starts */
const char *fb3_csv_path(const fb3_csv *csv);

/* Writes one field, quoted when it must be (comma, quote, newline). */
#include <stdio.h>
void fb3_csv_write_field(FILE *file, const char *text);

#endif
