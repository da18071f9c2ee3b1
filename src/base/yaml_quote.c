/* Texts as YAML scalars that read back as the same bytes: bare where nothing can be misread, else in double quotes,
 * with escapes for whatever YAML does not allow in a file or would fold into a space. */
#include "yaml_text.h"

#include "fb3/utf8.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool fb3_text_is_utf8(const char *text)
{
    return fb3_utf8_valid(text, strlen(text)) == strlen(text);
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
static bool needs_escape(uint32_t code)
{
    enum { NO_BREAK_SPACE = 0xA0, LINE_SEPARATOR = 0x2028, PARAGRAPH_SEPARATOR = 0x2029, BYTE_ORDER_MARK = 0xFEFF };
    return code < ' ' || (code > '~' && code < NO_BREAK_SPACE) || code == LINE_SEPARATOR ||
           code == PARAGRAPH_SEPARATOR || code == BYTE_ORDER_MARK || (code & 0xFFFE) == 0xFFFE;
}

/* `text` is UTF-8: the parser has checked it. */
static void write_quoted(FILE *out, const char *text)
{
    size_t left = strlen(text);
    fputc('"', out);
    while (left > 0) {
        uint32_t code = 0;
        if (strncmp(text, "${", 2) == 0) fputc('$', out); /* see expand.c */
        int length = fb3_utf8_decode(text, left, &code);
        assert(length > 0);
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (int)code);
        else if (code == '\n')
            fputs("\\n", out);
        else if (needs_escape(code))
            fprintf(out, code > 0xFFFF ? "\\U%08X" : "\\u%04X", code);
        else
            fwrite(text, 1, (size_t)length, out);
        text += length;
        left -= (size_t)length;
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
