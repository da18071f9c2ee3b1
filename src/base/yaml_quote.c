/* Texts as YAML scalars that read back as the same bytes: bare where nothing can be misread, else in double quotes,
 * with escapes for whatever YAML does not allow in a file or would fold into a space. */
#include "yaml_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UTF8_MAX = 0x10FFFF, SURROGATES = 0xD800, SURROGATES_END = 0xDFFF, NOT_UTF8 = -1 };

/* The forms of RFC 3629. A code point must not be written longer than needed, hence `least`. */
static const struct form {
    unsigned char mask, lead;
    int length;
    long least;
} FORMS[] = {{0x80, 0x00, 1, 0}, {0xE0, 0xC0, 2, 0x80}, {0xF0, 0xE0, 3, 0x800}, {0xF8, 0xF0, 4, 0x10000}};

static const struct form *form_of(unsigned char lead)
{
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++)
        if ((lead & FORMS[i].mask) == FORMS[i].lead) return &FORMS[i];
    return NULL;
}

long fb3_utf8_next(const char **text)
{
    const unsigned char *byte = (const unsigned char *)*text;
    const struct form *form = form_of(byte[0]);
    if (!form) return NOT_UTF8;
    long code = byte[0] & ~form->mask;
    for (int i = 1; i < form->length; i++) {
        if ((byte[i] & 0xC0) != 0x80) return NOT_UTF8; /* the terminating 0 ends here too */
        code = code << 6 | (byte[i] & 0x3F);
    }
    if (code < form->least || code > UTF8_MAX || (code >= SURROGATES && code <= SURROGATES_END)) return NOT_UTF8;
    *text += form->length;
    return code;
}

bool fb3_text_is_utf8(const char *text)
{
    while (*text)
        if (fb3_utf8_next(&text) == NOT_UTF8) return false;
    return true;
}

/* Letters, digits and a few signs that have no meaning in YAML wherever they stand. */
static bool bare(const char *text)
{
    static const char SAFE[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
    if (!*text || strchr("-.", *text)) return false;
    if (strcasecmp(text, "null") == 0) return false;
    return text[strspn(text, SAFE)] == 0;
}

/* Line separators are line breaks to YAML 1.1, and the byte order mark and the last two of a plane no characters. */
static bool needs_escape(long code)
{
    enum { NO_BREAK_SPACE = 0xA0, LINE_SEPARATOR = 0x2028, PARAGRAPH_SEPARATOR = 0x2029, BYTE_ORDER_MARK = 0xFEFF };
    return code < ' ' || (code > '~' && code < NO_BREAK_SPACE) || code == LINE_SEPARATOR ||
           code == PARAGRAPH_SEPARATOR || code == BYTE_ORDER_MARK || (code & 0xFFFE) == 0xFFFE;
}

static void write_quoted(FILE *out, const char *text)
{
    fputc('"', out);
    while (*text) {
        if (strncmp(text, "${", 2) == 0) fputc('$', out); /* see expand.c */
        const char *start = text;
        long code = fb3_utf8_next(&text);
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (int)code);
        else if (code == '\n')
            fputs("\\n", out);
        else if (needs_escape(code))
            fprintf(out, code > 0xFFFF ? "\\U%08lX" : "\\u%04lX", (unsigned long)code);
        else
            fwrite(start, 1, (size_t)(text - start), out);
    }
    fputc('"', out);
}

char *fb3_yaml_quote(const char *text)
{
    if (bare(text)) return strdup(text);
    char *quoted = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&quoted, &bytes);
    if (!out) return NULL;
    write_quoted(out, text);
    bool written = !ferror(out);
    if (fclose(out) == 0 && written) return quoted;
    free(quoted);
    return NULL;
}
