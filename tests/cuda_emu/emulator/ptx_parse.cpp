/* PTX text into functions of statements, and the variables outside them. */
#ifndef CUDAEMU_CHECK
#include "memory.h"
#include "ptx_program.h"
#include "scheduler.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>
#include <iterator>

namespace cudaemu
{
namespace ptx
{

void refuse(const std::string &file, int line, const std::string &text, const char *why)
{
    fail("%s:%d: %s: %s", file.c_str(), line, why, text.c_str());
}

std::string trimmed(const std::string &s)
{
    size_t a = s.find_first_not_of(" \t\r\n"), b = s.find_last_not_of(" \t\r\n");
    return a == std::string::npos ? std::string() : s.substr(a, b - a + 1);
}

/* Comments become blanks; lines stay where they are. */
static void blank_comments(std::string &text)
{
    for (size_t i = 0; i + 1 < text.size(); i++) {
        if (text[i] == '/' && text[i + 1] == '/')
            for (; i < text.size() && text[i] != '\n'; i++) text[i] = ' ';
        else if (text[i] == '/' && text[i + 1] == '*')
            for (; i < text.size() && !(text[i] == '*' && i + 1 < text.size() && text[i + 1] == '/'); i++) {
                if (text[i] != '\n') text[i] = ' ';
            }
        if (i + 1 < text.size() && text[i] == '*' && text[i + 1] == '/') text[i] = text[i + 1] = ' ';
    }
}

struct Reader {
    std::string text, file;
    size_t at = 0;
    int line = 1;

    bool end() const { return at >= text.size(); }
    char next()
    {
        char c = text[at++];
        if (c == '\n') line++;
        return c;
    }
    void skip_blanks()
    {
        while (!end() && isspace((unsigned char)text[at])) next();
    }
    void skip_line()
    {
        while (!end() && text[at] != '\n') next();
    }
    bool begins(const char *word) const { return text.compare(at, strlen(word), word) == 0; }
    void skip_braces()
    {
        int depth = 0;
        do {
            char c = next();
            depth += (c == '{') - (c == '}');
        } while (!end() && depth > 0);
    }
};

static size_t bytes_of_type(const std::string &word)
{
    static const char *const TYPES[] = {".b8",  ".u8",  ".s8",  ".b16", ".u16", ".s16",
                                        ".f16", ".b32", ".u32", ".s32", ".f32"};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (word == TYPES[i]) return i < 3 ? 1 : i < 7 ? 2 : 4;
    return 8;
}

/* ".global .align 4 .b8 name[24] = {1, 2, ...}" */
static void variable(const Reader &r, const std::string &declaration, Module &module)
{
    size_t equals = declaration.find('='), bracket = declaration.find('[');
    std::string left = trimmed(declaration.substr(0, equals));
    bracket = left.find('[');
    size_t name_at = left.find_last_of(" \t\n", bracket == std::string::npos ? bracket : bracket - 1) + 1;
    std::string name = trimmed(left.substr(name_at, bracket - name_at));
    if (left.find(".shared") != std::string::npos) {
        if (left.find(".extern") == std::string::npos) {
            module.shared[name] = left;
            return;
        }
        module.dynamic_shared = name;
        return;
    }
    if (left.find(".extern") != std::string::npos) refuse(r.file, r.line, declaration, "a variable of another file");
    size_t element = 8, type_at = left.rfind('.', name_at);
    if (type_at != std::string::npos) element = bytes_of_type(trimmed(left.substr(type_at, name_at - type_at)));
    size_t count = bracket == std::string::npos ? 1 : strtoul(left.c_str() + bracket + 1, nullptr, 0);
    if (left.find(".v2") != std::string::npos) count *= 2;
    if (left.find(".v4") != std::string::npos) count *= 4;
    std::string bytes(element * std::max<size_t>(count, 1), '\0');
    if (equals != std::string::npos) {
        std::string values = declaration.substr(equals + 1);
        if (values.find_first_of("\"ghijklmnopqrstuvwyz$_") != std::string::npos)
            refuse(r.file, r.line, declaration, "this kind of initial value");
        const char *p = values.c_str();
        for (size_t i = 0; i < bytes.size() / element; i++) {
            while (*p && !isdigit((unsigned char)*p) && *p != '-') p++;
            if (!*p) break;
            char *stop;
            uint64_t v = p[0] == '0' && (p[1] == 'f' || p[1] == 'F' || p[1] == 'd' || p[1] == 'D')
                             ? strtoull(p + 2, &stop, 16)
                             : (uint64_t)(*p == '-' ? (uint64_t)strtoll(p, &stop, 0) : strtoull(p, &stop, 0));
            p = stop;
            memcpy(&bytes[i * element], &v, element);
        }
    }
    char *memory = (char *)memory_allocate(bytes.size(), 0);
    if (!memory) fail("%s: no device memory for %s", r.file.c_str(), name.c_str());
    memory_open();
    memcpy(memory, bytes.data(), bytes.size());
    memory_close();
    module.variables[name] = (uint64_t)(uintptr_t)memory;
}

/* From behind the opening brace to behind the closing one. */
static void body(Reader &r, std::vector<Statement> &statements)
{
    int depth = 1, line = 0;
    std::string statement;
    while (!r.end()) {
        if (statement.empty()) {
            r.skip_blanks();
            if (r.begins(".loc ") || r.begins(".loc\t")) {
                r.skip_line();
                continue;
            }
            line = r.line;
        }
        if (r.end()) break;
        char c = r.next();
        if (statement.empty() && c == '{') {
            depth++;
        } else if (statement.empty() && c == '}') {
            if (--depth == 0) return;
        } else if (c == ';') {
            statements.push_back({trimmed(statement), line});
            statement.clear();
        } else {
            statement += isspace((unsigned char)c) ? ' ' : c;
            if (c == ':' && statement.find_first_of(" [{(\"") == std::string::npos && !r.begins(":")) { /* a label */
                size_t first = statement.find(':');
                if (first == statement.size() - 1) {
                    statements.push_back({statement, line});
                    statement.clear();
                }
            }
        }
    }
    refuse(r.file, r.line, "", "a function does not end");
}

std::vector<Source> parse(const std::string &file, Module &module)
{
    std::vector<Source> sources;
    std::ifstream in(file, std::ios::binary);
    if (!in) fail("cannot read %s (CUDAEMU_PTX)", file.c_str());
    Reader r;
    r.file = file;
    r.text.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    blank_comments(r.text);
    for (;;) {
        r.skip_blanks();
        if (r.end()) return sources;
        if (r.begins(".version") || r.begins(".target") || r.begins(".address_size") || r.begins(".file")) {
            r.skip_line();
            continue;
        }
        if (r.begins(".section")) {
            r.skip_braces();
            continue;
        }
        std::string head;
        char c = 0;
        while (!r.end() && (c = r.next()) != ';' && c != '{' && c != '=') head += isspace((unsigned char)c) ? ' ' : c;
        if (c == '=') {
            head += c;
            while (!r.end() && (c = r.next()) != ';') head += isspace((unsigned char)c) ? ' ' : c;
            variable(r, head, module);
            continue;
        }
        bool kernel = head.find(".entry") != std::string::npos, function = head.find(".func") != std::string::npos;
        if (c == '{' && (kernel || function)) {
            sources.push_back({file, head, kernel, {}});
            body(r, sources.back().body);
        } else if (c == ';' && !kernel && !function) {
            if (trimmed(head).compare(0, 7, ".pragma") != 0) variable(r, head, module);
        } else if (c == '{') {
            refuse(file, r.line, head, "unexpected text");
        } /* else: a declaration */
    }
}

} // namespace ptx
} // namespace cudaemu
#endif
