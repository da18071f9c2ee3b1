/* Statements of PTX into instructions: everything about an operand or a modifier that can be known is settled here. */
#ifndef CUDAEMU_CHECK
#include "ptx_decoder.h"

#include <cstdlib>
#include <cstring>
#include <sstream>

namespace cudaemu
{
namespace ptx
{

const char *const SPECIALS[] = {"%tid.x",           "%tid.y",       "%tid.z",
                                "%ntid.x",          "%ntid.y",      "%ntid.z",
                                "%ctaid.x",         "%ctaid.y",     "%ctaid.z",
                                "%nctaid.x",        "%nctaid.y",    "%nctaid.z",
                                "%laneid",          "%warpid",      "%nwarpid",
                                "%lanemask_eq",     "%lanemask_lt", "%lanemask_le",
                                "%lanemask_gt",     "%lanemask_ge", "%dynamic_smem_size",
                                "%total_smem_size", "WARP_SZ",      nullptr};

int bytes_of(Type t)
{
    switch (t) {
    case B8:
    case U8:
    case S8:
        return 1;
    case B16:
    case U16:
    case S16:
    case F16:
    case BF16:
        return 2;
    case B32:
    case U32:
    case S32:
    case F32:
    case F16X2:
    case BF16X2:
        return 4;
    case PRED:
    case NONE:
        return 0;
    default:
        return 8;
    }
}
bool is_signed(Type t)
{
    return t == S8 || t == S16 || t == S32 || t == S64;
}

static Type type_named(const std::string &name)
{
    static const std::map<std::string, Type> TYPES = {
        {"b8", B8},   {"u8", U8},   {"s8", S8},     {"b16", B16},     {"u16", U16},      {"s16", S16}, {"b32", B32},
        {"u32", U32}, {"s32", S32}, {"b64", B64},   {"u64", U64},     {"s64", S64},      {"f16", F16}, {"bf16", BF16},
        {"f32", F32}, {"f64", F64}, {"pred", PRED}, {"f16x2", F16X2}, {"bf16x2", BF16X2}};
    auto it = TYPES.find(name);
    return it == TYPES.end() ? NONE : it->second;
}

/* At commas outside brackets. */
std::vector<std::string> split(const std::string &text)
{
    std::vector<std::string> parts;
    std::string part;
    int depth = 0;
    for (char c : text) {
        depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
        if (c == ',' && depth == 0) {
            parts.push_back(trimmed(part));
            part.clear();
        } else {
            part += c;
        }
    }
    if (!trimmed(part).empty()) parts.push_back(trimmed(part));
    return parts;
}

/* --- operands ----------------------------------------------------------------------------------------------------- */

/* Slots get their final numbers when the function is complete; until then constants and special registers are marked.
 */
enum : uint32_t { CONSTANT_SLOT = 1u << 30, SPECIAL_SLOT = 1u << 29, DYNAMIC_SHARED = SPECIAL_SLOT | 100 };

void Decoder::refuse(const char *why) const
{
    ptx::refuse(source.file, line, text, why);
}

bool Decoder::has(const char *modifier) const
{
    for (const std::string &m : modifiers)
        if (m == modifier) return true;
    return false;
}

uint32_t Decoder::constant(uint64_t value)
{
    auto it = constants.find(value);
    if (it != constants.end()) return it->second;
    uint32_t slot = CONSTANT_SLOT | (uint32_t)f.constants.size();
    f.constants.push_back(value);
    return constants[value] = slot;
}

uint32_t Decoder::special(int which)
{
    for (auto &s : f.specials)
        if (s.second == which) return s.first;
    f.specials.push_back({SPECIAL_SLOT | (uint32_t)which, which});
    return SPECIAL_SLOT | (uint32_t)which;
}

uint32_t Decoder::new_register(const std::string &name, int bits)
{
    registers[name] = {f.registers, bits};
    f.register_names.push_back(name);
    return f.registers++;
}

static bool is_number(const std::string &s)
{
    return isdigit((unsigned char)s[0]) ||
           ((s[0] == '-' || s[0] == '+') && s.size() > 1 && isdigit((unsigned char)s[1]));
}

static uint64_t number(const std::string &s)
{
    if (s[0] == '0' && s.size() > 1 && strchr("fFdD", s[1])) return strtoull(s.c_str() + 2, nullptr, 16);
    return s[0] == '-' ? (uint64_t)strtoll(s.c_str(), nullptr, 0) : strtoull(s.c_str(), nullptr, 0);
}

/* The slot of an operand that is read as `bits` bits. */
uint32_t Decoder::use(const std::string &name, int bits)
{
    auto reg = registers.find(name);
    if (reg != registers.end()) {
        reads.back().push_back(reg->second.slot);
        return reg->second.slot;
    }
    if (is_number(name)) {
        uint64_t value = number(name);
        return constant(bits >= 64 ? value : value & ((1ull << bits) - 1));
    }
    for (int i = 0; SPECIALS[i]; i++)
        if (name == SPECIALS[i]) return special(i);
    auto shared = module.shared.find(name);
    if (shared != module.shared.end() && !symbols.count(name)) declare_memory(shared->second);
    auto symbol = symbols.find(name);
    if (symbol != symbols.end()) return constant(symbol->second.offset);
    if (name == module.dynamic_shared) return special(100);
    auto variable = module.variables.find(name);
    if (variable != module.variables.end()) return constant(variable->second);
    auto parameter = f.parameters.find(name);
    if (parameter != f.parameters.end()) return constant(parameter->second.offset);
    refuse(("an operand that is not emulated, " + name).c_str());
}

/* A predicate, perhaps "!p". */
uint32_t Decoder::use_predicate(std::string name, bool *negated)
{
    *negated = name[0] == '!';
    if (*negated) name = trimmed(name.substr(1));
    if (is_number(name)) return constant(number(name) != 0);
    return use(name, 1);
}

uint32_t Decoder::define(const std::string &name, int *bits)
{
    if (name == "_") return registers.count("_") ? registers["_"].slot : new_register("_", 64);
    auto reg = registers.find(name);
    if (reg == registers.end()) refuse("a result that is no register");
    if (bits) *bits = reg->second.bits;
    writes.back().push_back(reg->second.slot);
    return reg->second.slot;
}

/* "{a, b}" or "a" */
static std::vector<std::string> elements(const std::string &operand)
{
    if (operand[0] != '{') return {operand};
    return split(operand.substr(1, operand.rfind('}') - 1));
}

uint8_t Decoder::use_list(const std::string &operand, int bits)
{
    auto names = elements(operand);
    for (const std::string &name : names) f.lists.push_back(use(name, bits));
    return (uint8_t)names.size();
}
uint8_t Decoder::define_list(const std::string &operand, int *bits)
{
    auto names = elements(operand);
    for (const std::string &name : names) f.lists.push_back(define(name, bits));
    return (uint8_t)names.size();
}

/* "[%rd1+16]": the base's slot, the offset, and what space a symbol is in. */
Decoder::Address Decoder::address(const std::string &operand)
{
    Address a = {0, 0, GENERIC};
    if (operand[0] != '[') refuse("an address is expected");
    std::string in = trimmed(operand.substr(1, operand.rfind(']') - 1));
    size_t plus = in.find('+');
    std::string base = trimmed(in.substr(0, plus));
    if (plus != std::string::npos) a.offset = (int64_t)number(trimmed(in.substr(plus + 1)));
    auto symbol = symbols.find(base);
    if (symbol != symbols.end()) a.space = symbol->second.space;
    a.base = use(base, 64);
    return a;
}

Instruction &Decoder::emit(Code code)
{
    Instruction in = {};
    in.code = code;
    in.type = type;
    in.from = from;
    in.width = (uint8_t)(8 * bytes_of(type));
    in.flags = flags;
    in.list = (uint32_t)f.lists.size();
    f.code.push_back(in);
    f.lines.push_back(line);
    return f.code.back();
}

/* --- statements --------------------------------------------------------------------------------------------------- */

static size_t align_up(size_t n, size_t alignment)
{
    return alignment ? (n + alignment - 1) / alignment * alignment : n;
}

/* ".param .align 8 .b8 name[72]", ".shared .align 4 .b8 name[16]": name, bytes, alignment */
struct Declared {
    std::string name;
    size_t bytes, alignment;
};
static Declared declared(const std::string &declaration)
{
    Declared d = {"", 8, 0};
    std::stringstream words(declaration);
    std::string word;
    bool pointer = false;
    while (words >> word) {
        Type t = word[0] == '.' ? type_named(word.substr(1)) : NONE;
        if (t != NONE) d.bytes = (size_t)bytes_of(t);
        if (word == ".ptr") pointer = true; /* an alignment that follows is that of what it points to */
        if (word == ".align") {
            size_t alignment = 0;
            words >> alignment;
            if (!pointer) d.alignment = alignment;
        } else if (word[0] != '.') {
            d.name = word;
        }
    }
    if (d.alignment == 0) d.alignment = d.bytes;
    size_t bracket = d.name.find('[');
    if (bracket != std::string::npos) {
        d.bytes *= strtoul(d.name.c_str() + bracket + 1, nullptr, 0);
        d.name.resize(bracket);
    }
    return d;
}

void Decoder::declare_registers(const std::string &rest)
{
    std::stringstream words(rest);
    std::string kind, names;
    words >> kind;
    std::getline(words, names);
    Type t = type_named(kind.substr(1));
    int bits = t == PRED ? 1 : 8 * bytes_of(t);
    if (bits == 0) refuse("registers of this type");
    for (const std::string &name : split(names)) {
        size_t range = name.find('<');
        if (range == std::string::npos) {
            new_register(name, bits);
            continue;
        }
        for (int i = 0, n = atoi(name.c_str() + range + 1); i < n; i++)
            new_register(name.substr(0, range) + std::to_string(i), bits);
    }
}

void Decoder::declare_memory(const std::string &declaration)
{
    Declared d = declared(declaration);
    bool shared = declaration.compare(0, 7, ".shared") == 0;
    uint32_t &total = shared ? f.shared_bytes : f.local_bytes; /* .param of a call: local memory */
    total = (uint32_t)align_up(total, d.alignment < 8 && !shared ? 8 : d.alignment);
    symbols[d.name] = {shared ? SHARED : LOCAL, total, (uint32_t)d.bytes};
    total += (uint32_t)d.bytes;
}

void Decoder::statement(const Statement &s)
{
    text = s.text;
    line = s.line;
    if (text.empty()) return;
    if (text.back() == ':') {
        last_label = text.substr(0, text.size() - 1);
        labels[last_label] = (int64_t)f.code.size();
        return;
    }
    if (text.compare(0, 5, ".reg ") == 0) return declare_registers(text.substr(5));
    if (text.compare(0, 7, ".shared") == 0 || text.compare(0, 6, ".local") == 0 || text.compare(0, 6, ".param") == 0)
        return declare_memory(text);
    if (text.compare(0, 14, ".branchtargets") == 0) {
        tables[last_label] = split(text.substr(14));
        return;
    }
    if (text[0] == '.') return;

    std::string rest = text;
    int skip = -1;
    if (rest[0] == '@') {
        size_t space = rest.find(' ');
        bool negated = rest[1] == '!';
        std::string predicate = rest.substr(negated ? 2 : 1, space - (negated ? 2 : 1));
        rest = trimmed(rest.substr(space));
        begin(rest);
        uint32_t slot = use(predicate, 1);
        bool branch = opcode == "bra";
        Instruction &in = emit(branch == negated ? BRANCH_IF_NOT : BRANCH_IF);
        in.a = slot;
        if (branch) {
            fixups.push_back({f.code.size() - 1, operands.at(0)});
            finish();
            return;
        }
        skip = (int)f.code.size() - 1;
        finish();
    }
    begin(rest);
    instruction();
    finish();
    if (skip >= 0) f.code[(size_t)skip].immediate = (int64_t)f.code.size();
}

/* Splits "add.rn.f32 %f1, %f2, %f3;" */
void Decoder::begin(const std::string &statement)
{
    size_t space = statement.find(' ');
    std::string part;
    std::stringstream parts(statement.substr(0, space));
    std::getline(parts, opcode, '.');
    modifiers.clear();
    while (std::getline(parts, part, '.')) modifiers.push_back(part);
    operands = space == std::string::npos ? std::vector<std::string>() : split(trimmed(statement.substr(space)));
    type = from = NONE;
    space_named = GENERIC;
    flags = 0;
    vector = 1;
    for (const std::string &m : modifiers) {
        Type t = type_named(m);
        if (t != NONE && type == NONE)
            type = t;
        else if (t != NONE && from == NONE)
            from = t;
        if (m == "ftz") flags |= FTZ;
        if (m == "sat") flags |= SATURATE;
        if (m == "NaN") flags |= NAN_WINS;
        if (m == "rm") flags |= ROUND_DOWN;
        if (m == "rp") flags |= ROUND_UP;
        if (m == "rz") flags |= ROUND_ZERO;
        if (m == "global") space_named = GLOBAL;
        if (m == "const") space_named = GLOBAL; /* it lives in the arena, too */
        if (m.compare(0, 6, "shared") == 0) space_named = SHARED;
        if (m.compare(0, 5, "param") == 0) space_named = PARAM;
        if (m == "local") space_named = LOCAL;
        if (m == "v2" || m == "v4" || m == "v8") vector = m[1] - '0';
    }
    reads.resize(f.code.size() + 1);
    writes.resize(f.code.size() + 1);
}

/* What an instruction read and wrote was noted at its index. */
void Decoder::finish()
{
    reads.resize(f.code.size());
    writes.resize(f.code.size());
}

/* --- functions ---------------------------------------------------------------------------------------------------- */

/* ".visible .entry name(.param .u64 a, ...) .maxntid 128, 1, 1" or ".func (.param .b32 r) name(...)" */
void Decoder::read_head()
{
    std::string head = source.head;
    size_t at = source.is_kernel ? head.find(".entry") + 6 : head.find(".func") + 5;
    auto parameters = [&](size_t open, uint32_t *bytes) {
        size_t close = head.find(')', open);
        for (const std::string &parameter : split(head.substr(open + 1, close - open - 1))) {
            Declared d = declared(parameter);
            *bytes = (uint32_t)align_up(*bytes, d.alignment);
            f.parameters[d.name] = {*bytes, (uint32_t)d.bytes};
            f.parameter_order.push_back(f.parameters[d.name]);
            *bytes += (uint32_t)d.bytes;
        }
        return close + 1;
    };
    size_t open = head.find('(', at);
    std::string before = trimmed(head.substr(at, open - at));
    if (before.empty()) { /* a result comes first */
        at = parameters(open, &f.result_bytes);
        f.result_bytes = (uint32_t)align_up(f.result_bytes, 16);
        f.parameter_order.clear();
        open = head.find('(', at);
        before = trimmed(head.substr(at, open - at));
    }
    f.name = before.substr(0, before.find(' '));
    f.parameter_bytes = f.result_bytes;
    if (open != std::string::npos) at = parameters(open, &f.parameter_bytes);
    for (const char *limit : {".maxntid", ".reqntid"}) {
        size_t found = head.find(limit, at);
        if (found == std::string::npos) continue;
        f.threads_max = 1;
        for (const std::string &n : split(head.substr(found + 8, head.find('.', found + 8) - found - 8)))
            f.threads_max *= (unsigned)atoi(n.c_str());
    }
}

void Decoder::place_slots()
{
    const uint32_t constants_at = f.registers, specials_at = constants_at + (uint32_t)f.constants.size();
    auto place = [&](uint32_t &slot) {
        if (slot & CONSTANT_SLOT) {
            slot = constants_at + (slot & ~CONSTANT_SLOT);
        } else if (slot & SPECIAL_SLOT) {
            int which = (int)(slot & ~SPECIAL_SLOT);
            for (size_t i = 0; i < f.specials.size(); i++)
                if (f.specials[i].second == which) slot = specials_at + (uint32_t)i;
        }
    };
    for (Instruction &in : f.code)
        for (uint32_t *slot : {&in.d, &in.a, &in.b, &in.c}) place(*slot);
    for (uint32_t &slot : f.lists) place(slot);
    for (size_t i = 0; i < f.specials.size(); i++) f.specials[i].first = specials_at + (uint32_t)i;
    f.slots = specials_at + (uint32_t)f.specials.size();
}

Function Decoder::decode()
{
    f.file = source.file;
    f.is_kernel = source.is_kernel;
    read_head();
    for (const Statement &s : source.body) statement(s);
    begin("ret");
    emit(source.is_kernel ? EXIT : RETURN);
    finish();
    auto target = [this](const std::string &label) {
        auto it = labels.find(label);
        if (it == labels.end()) refuse(("no such label, " + label).c_str());
        return it->second;
    };
    for (auto &fixup : fixups) f.code[fixup.first].immediate = target(fixup.second);
    for (auto &fixup : table_fixups) {
        f.code[fixup.first].immediate = (int64_t)f.branch_tables.size();
        f.branch_tables.emplace_back();
        for (const std::string &label : tables[fixup.second]) f.branch_tables.back().push_back(target(label));
    }
    f.shared_bytes = (uint32_t)align_up(f.shared_bytes, 16);
    f.local_bytes = (uint32_t)align_up(f.local_bytes, 16);
    place_slots();
    find_unwritten(f, reads, writes);
    f.executed.assign(f.code.size(), 0);
    f.issued.assign(f.code.size(), 0);
    return std::move(f);
}

Function decode(const Source &source, const Module &module)
{
    return Decoder(source, module).decode();
}

} // namespace ptx
} // namespace cudaemu
#endif
