/* One instruction of PTX: its opcode, type and modifiers into a code and its operands. */
#ifndef CUDAEMU_CHECK
#include "ptx_decoder.h"

#include <cstdlib>
#include <cstring>

namespace cudaemu
{
namespace ptx
{

static bool is_half(Type t)
{
    return t == F16 || t == BF16 || t == F16X2 || t == BF16X2;
}
static bool is_float(Type t)
{
    return t == F32 || t == F64 || is_half(t);
}

/* d, a, b */
void Decoder::binary(Code code, int bits)
{
    uint32_t a = use(operands.at(1), bits), b = use(operands.at(2), bits), d = define(operands.at(0));
    Instruction &in = emit(code);
    in.a = a, in.b = b, in.d = d;
}

void Decoder::instruction()
{
    static const std::map<std::string, void (Decoder::*)()> OTHERS = {
        {"mov", &Decoder::move},    {"setp", &Decoder::compare}, {"cvt", &Decoder::convert},
        {"ld", &Decoder::memory},   {"ldu", &Decoder::memory},   {"st", &Decoder::memory},
        {"atom", &Decoder::atomic}, {"red", &Decoder::atomic},   {"call", &Decoder::call},
    };
    auto other = OTHERS.find(opcode);
    if (other != OTHERS.end()) return (this->*other->second)();
    if (control() || warp() || float_arithmetic() || arithmetic() || bit_arithmetic()) return;
    refuse("an instruction that is not emulated");
}

/* --- arithmetic --------------------------------------------------------------------------------------------------- */

bool Decoder::float_arithmetic()
{
    static const std::map<std::string, Sub> SUBS = {
        {"add", F_ADD},   {"sub", F_SUB},     {"mul", F_MUL},   {"fma", F_FMA},          {"mad", F_FMA},
        {"div", F_DIV},   {"min", F_MIN},     {"max", F_MAX},   {"neg", F_NEG},          {"abs", F_ABS},
        {"sqrt", F_SQRT}, {"rsqrt", F_RSQRT}, {"rcp", F_RCP},   {"ex2", F_EX2},          {"lg2", F_LG2},
        {"sin", F_SIN},   {"cos", F_COS},     {"tanh", F_TANH}, {"copysign", F_COPYSIGN}};
    if (opcode == "testp") {
        uint32_t a = use(operands.at(1), 64), d = define(operands.at(0));
        Instruction &in = emit(type == F64 ? FLOAT64 : FLOAT32);
        in.a = a, in.d = d;
        in.sub = has("finite") ? F_TESTP_FINITE : has("infinite") ? F_TESTP_INFINITE : F_TESTP_NAN;
        if (!has("finite") && !has("infinite") && !has("notanumber")) refuse("a test that is not emulated");
        return true;
    }
    auto it = SUBS.find(opcode);
    if (it == SUBS.end() || !is_float(type)) return false;
    const int bits = 8 * bytes_of(type);
    uint32_t slots[3] = {0, 0, 0};
    for (size_t i = 1; i < operands.size() && i < 4; i++) slots[i - 1] = use(operands[i], bits);
    uint32_t d = define(operands.at(0));
    Code code = type == F64 ? FLOAT64 : type == F32 ? FLOAT32 : HALF;
    if (has("relu") || has("xorsign") || has("abs")) refuse("a modifier that is not emulated");
    if (type == F32 && flags == 0) { /* the usual ones have codes of their own */
        static const std::map<int, Code> PLAIN = {{F_ADD, ADD_F32}, {F_SUB, SUB_F32}, {F_MUL, MUL_F32},
                                                  {F_FMA, FMA_F32}, {F_DIV, DIV_F32}, {F_MIN, MIN_F32},
                                                  {F_MAX, MAX_F32}, {F_NEG, NEG_F32}, {F_ABS, ABS_F32}};
        auto plain = PLAIN.find(it->second);
        if (plain != PLAIN.end()) code = plain->second;
    }
    Instruction &in = emit(code);
    in.sub = it->second;
    in.d = d, in.a = slots[0], in.b = slots[1], in.c = slots[2];
    return true;
}

bool Decoder::arithmetic()
{
    const int bits = 8 * bytes_of(type);
    auto sized = [&](Code w16, Code w32, Code w64) { return bits == 16 ? w16 : bits == 32 ? w32 : w64; };
    if (opcode == "mul24" || opcode == "mad24" || has("cc") || has("sat")) return false;
    if (opcode == "add") return binary(sized(ADD_16, ADD_32, ADD_64), bits), true;
    if (opcode == "sub") return binary(sized(SUB_16, SUB_32, SUB_64), bits), true;
    if (opcode == "div" || opcode == "rem") {
        binary(DIV_REM, bits);
        f.code.back().sub = opcode == "rem";
        return true;
    }
    if (opcode == "min" || opcode == "max") {
        binary(MIN_MAX, bits);
        f.code.back().sub = opcode == "max";
        return true;
    }
    if (opcode == "neg" || opcode == "abs") {
        uint32_t a = use(operands.at(1), bits), d = define(operands.at(0));
        Instruction &in = emit(opcode == "neg" ? NEG : ABS);
        in.a = a, in.d = d;
        return true;
    }
    if (opcode != "mul" && opcode != "mad") return false;
    const bool wide = has("wide"), hi = has("hi"), mad = opcode == "mad";
    uint32_t a = use(operands.at(1), bits), b = use(operands.at(2), bits);
    uint32_t c = mad ? use(operands.at(3), wide ? 2 * bits : bits) : 0, d = define(operands.at(0));
    Code code = wide && bits == 16 ? MUL_WIDE_16
                : wide             ? (mad ? (is_signed(type) ? MAD_WIDE_S32 : MAD_WIDE_U32)
                                          : (is_signed(type) ? MUL_WIDE_S32 : MUL_WIDE_U32))
                : hi               ? (mad ? MAD_HI : MUL_HI)
                : mad              ? sized(MAD_32, MAD_32, MAD_64)
                                   : sized(MUL_16, MUL_32, MUL_64);
    if (mad && bits == 16) refuse("an instruction that is not emulated");
    Instruction &in = emit(code);
    in.d = d, in.a = a, in.b = b, in.c = c;
    return true;
}

bool Decoder::bit_arithmetic()
{
    const int bits = type == PRED ? 1 : 8 * bytes_of(type);
    if (opcode == "and" || opcode == "or" || opcode == "xor") {
        binary(opcode == "and" ? AND : opcode == "or" ? OR : XOR, bits);
        return true;
    }
    if (opcode == "shl" || opcode == "shr") {
        uint32_t a = use(operands.at(1), bits), b = use(operands.at(2), 32), d = define(operands.at(0));
        Code code = SHIFT;
        if (opcode == "shl" && bits == 32) code = SHL_32;
        if (opcode == "shl" && bits == 64) code = SHL_64;
        if (opcode == "shr" && bits == 32) code = is_signed(type) ? SHR_S32 : SHR_U32;
        Instruction &in = emit(code);
        in.sub = opcode == "shr";
        in.d = d, in.a = a, in.b = b;
        return true;
    }
    if (opcode == "selp" || opcode == "slct") {
        if (opcode == "slct") return false;
        bool negated;
        uint32_t a = use(operands.at(1), bits), b = use(operands.at(2), bits),
                 c = use_predicate(operands.at(3), &negated);
        uint32_t d = define(operands.at(0));
        Instruction &in = emit(SELP);
        in.d = d, in.a = negated ? b : a, in.b = negated ? a : b, in.c = c;
        return true;
    }
    static const std::map<std::string, Code> UNARY = {
        {"not", NOT}, {"popc", POPC}, {"clz", CLZ}, {"brev", BREV}, {"bfind", BFIND}};
    auto unary = UNARY.find(opcode);
    if (unary != UNARY.end()) {
        if (has("shiftamt")) return false;
        uint32_t a = use(operands.at(1), bits), d = define(operands.at(0));
        Instruction &in = emit(unary->second);
        in.width = (uint8_t)bits;
        in.a = a, in.d = d;
        return true;
    }
    static const std::map<std::string, Code> TERNARY = {
        {"lop3", LOP3}, {"prmt", PRMT}, {"bfe", BFE}, {"shf", SHF}, {"bfi", BFI}};
    auto ternary = TERNARY.find(opcode);
    if (ternary == TERNARY.end()) return false;
    if (opcode == "prmt" && modifiers.size() > 1) return false; /* its special modes */
    if (opcode == "lop3" && type != B32) return false;
    const bool field = opcode == "bfe" || opcode == "bfi";
    uint32_t a = use(operands.at(1), bits), b = use(operands.at(2), opcode == "bfe" ? 32 : bits);
    uint32_t c = use(operands.at(3), field ? 32 : bits);
    size_t list = f.lists.size();
    if (opcode == "bfi") f.lists.push_back(use(operands.at(4), 32));
    uint32_t d = define(operands.at(0));
    Instruction &in = emit(ternary->second);
    in.list = (uint32_t)list;
    in.d = d, in.a = a, in.b = b, in.c = c;
    if (opcode == "lop3") in.immediate = (int64_t)strtol(operands.at(4).c_str(), nullptr, 0);
    if (opcode == "shf") in.sub = (uint8_t)((has("r") ? 1 : 0) | (has("clamp") ? 2 : 0));
    return true;
}

/* --- moves, comparisons, conversions ------------------------------------------------------------------------------ */

void Decoder::move()
{
    const std::string &to = operands.at(0), &what = operands.at(1);
    const int bits = type == PRED ? 1 : 8 * bytes_of(type);
    size_t list = f.lists.size();
    if (to[0] == '{') { /* mov.b64 {%r1, %r2}, %rd1 */
        uint32_t a = use(what, bits);
        uint8_t n = define_list(to);
        Instruction &in = emit(MOV_UNPACK);
        in.a = a, in.count = n, in.list = (uint32_t)list;
    } else if (what[0] == '{') {
        uint8_t n = use_list(what, bits / (int)split(what.substr(1, what.size() - 2)).size());
        uint32_t d = define(to);
        Instruction &in = emit(MOV_PACK);
        in.d = d, in.count = n, in.list = (uint32_t)list;
    } else {
        uint32_t a = use(what, bits), d = define(to);
        Instruction &in = emit(MOV);
        in.a = a, in.d = d;
    }
}

/* The outcomes for which a comparison holds: less 1, equal 2, greater 4, not comparable 8. */
static int outcomes(const std::string &comparison)
{
    static const std::map<std::string, int> OUTCOMES = {
        {"eq", 2}, {"ne", 5},   {"lt", 1},   {"le", 3},  {"gt", 4},   {"ge", 6},   {"lo", 1},   {"ls", 3},  {"hi", 4},
        {"hs", 6}, {"equ", 10}, {"neu", 13}, {"ltu", 9}, {"leu", 11}, {"gtu", 12}, {"geu", 14}, {"num", 7}, {"nan", 8}};
    auto it = OUTCOMES.find(comparison);
    return it == OUTCOMES.end() ? -1 : it->second;
}

void Decoder::compare()
{
    int mask = outcomes(modifiers.at(0)), bits = 8 * bytes_of(type);
    if (mask < 0) refuse("a comparison that is not emulated");
    uint32_t a = use(operands.at(1), bits), b = use(operands.at(2), bits), c = 0;
    bool negated = false;
    uint8_t combine = has("and") ? 1 : has("or") ? 2 : has("xor") ? 3 : 0;
    if (combine) c = use_predicate(operands.at(3), &negated);
    std::string first = operands.at(0), second;
    size_t bar = first.find('|');
    if (bar != std::string::npos) {
        second = first.substr(bar + 1);
        first.resize(bar);
    }
    uint32_t d = define(first);
    size_t list = f.lists.size();
    if (!second.empty()) f.lists.push_back(define(second));
    Code code;
    switch (type) {
    case S16:
        code = SETP_S16;
        break;
    case B16:
    case U16:
        code = SETP_U16;
        break;
    case S32:
        code = SETP_S32;
        break;
    case B32:
    case U32:
        code = SETP_U32;
        break;
    case S64:
        code = SETP_S64;
        break;
    case B64:
    case U64:
        code = SETP_U64;
        break;
    case F32:
        code = SETP_F32;
        break;
    case F64:
        code = SETP_F64;
        break;
    case F16:
    case BF16:
        code = SETP_HALF;
        break;
    default:
        refuse("a comparison that is not emulated");
    }
    Instruction &in = emit(code);
    in.d = d, in.a = a, in.b = b, in.c = c;
    in.count = (uint8_t)mask;
    in.sub = combine;
    in.list = (uint32_t)list;
    in.width = !second.empty();
    if (negated) in.flags |= OTHER;
}

void Decoder::convert()
{
    int register_bits = 64;
    if (from == NONE) refuse("a conversion that is not emulated");
    if (has("relu") || has("rna") || has("rs")) refuse("a conversion that is not emulated");
    const bool pair = (type == BF16X2 || type == F16X2) && from == F32;
    uint32_t a = use(operands.at(1), 8 * bytes_of(from)), b = pair ? use(operands.at(2), 32) : 0;
    uint32_t d = define(operands.at(0), &register_bits);
    bool integers = !is_float(type) && !is_float(from);
    Instruction &in = emit(integers ? EXTEND : CVT);
    in.d = d, in.a = a, in.b = b;
    in.width = (uint8_t)register_bits;
    if (integers && has("sat")) refuse("a conversion that is not emulated");
    for (const char *rounding : {"rni", "rmi", "rpi", "rzi"}) /* to an integer, perhaps one that stays a float */
        if (has(rounding))
            in.flags |= OTHER | (rounding[1] == 'n'   ? ROUND_NEAREST
                                 : rounding[1] == 'm' ? ROUND_DOWN
                                 : rounding[1] == 'p' ? ROUND_UP
                                                      : ROUND_ZERO);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

Code Decoder::by_space(Space space, Code of_global) const
{
    int index = space == GLOBAL ? 0 : space == SHARED ? 1 : space == PARAM ? 2 : space == LOCAL ? 3 : 4;
    return (Code)(of_global + index);
}

void Decoder::memory()
{
    const bool store = opcode == "st";
    if (has("async") || has("bulk") || type == NONE) refuse("an instruction that is not emulated");
    Address at = address(operands.at(store ? 0 : 1));
    Space space = space_named;
    if (at.space == LOCAL) space = LOCAL; /* also .param of a call */
    const int bits = 8 * bytes_of(type);
    size_t list = f.lists.size();
    uint8_t n = 1;
    uint32_t slot = 0;
    int register_bits = 64;
    const std::string &values = operands.at(store ? 1 : 0);
    if (values[0] == '{')
        n = store ? use_list(values, bits) : define_list(values, &register_bits);
    else
        slot = store ? use(values, bits) : define(values, &register_bits);
    if (n != vector) refuse("a vector of another length");
    Instruction &in = emit(by_space(space, store ? STORE_GLOBAL : LOAD_GLOBAL));
    in.a = at.base;
    in.immediate = at.offset;
    in.count = n;
    in.list = (uint32_t)list;
    in.width = (uint8_t)bytes_of(type);
    in.sub = (uint8_t)register_bits; /* of what is loaded, for signs */
    (store ? in.b : in.d) = slot;
}

void Decoder::atomic()
{
    static const std::map<std::string, Sub> SUBS = {{"add", A_ADD}, {"min", A_MIN}, {"max", A_MAX},   {"and", A_AND},
                                                    {"or", A_OR},   {"xor", A_XOR}, {"exch", A_EXCH}, {"cas", A_CAS},
                                                    {"inc", A_INC}, {"dec", A_DEC}};
    Sub sub = A_ADD;
    bool known = false;
    for (const std::string &m : modifiers) {
        auto it = SUBS.find(m);
        if (it != SUBS.end()) sub = it->second, known = true;
    }
    if (!known || is_half(type) || has("async") || vector != 1) refuse("an atomic that is not emulated");
    const bool red = opcode == "red";
    const int bits = 8 * bytes_of(type);
    size_t k = red ? 0 : 1;
    Address at = address(operands.at(k));
    uint32_t b = use(operands.at(k + 1), bits), c = sub == A_CAS ? use(operands.at(k + 2), bits) : 0;
    uint32_t d = red ? 0 : define(operands.at(0));
    Instruction &in = emit(ATOMIC);
    in.sub = sub;
    in.a = at.base, in.b = b, in.c = c, in.d = d;
    in.immediate = at.offset;
    in.width = (uint8_t)bytes_of(type);
    in.count = (uint8_t)(space_named == SHARED ? SHARED : space_named == GLOBAL ? GLOBAL : GENERIC);
    if (red) in.flags |= OTHER;
}

/* --- control ------------------------------------------------------------------------------------------------------ */

/* call.uni (retval0), opcode, (param0, param1); parameters are .param variables, which are local memory here. */
void Decoder::call()
{
    size_t k = 0;
    std::string result;
    auto inside = [](const std::string &s) { return s.substr(1, s.rfind(')') - 1); };
    if (operands.at(k)[0] == '(') result = inside(operands[k++]);
    std::string target = operands.at(k++);
    if (target[0] == '%') refuse("a call through a pointer");
    std::vector<std::string> arguments;
    if (k < operands.size() && operands[k][0] == '(') arguments = split(inside(operands[k]));
    size_t list = f.lists.size();
    auto place = [this](const std::string &variable) {
        auto it = symbols.find(variable);
        if (it == symbols.end() || it->second.space != LOCAL) refuse("a call with registers for parameters");
        f.lists.push_back(constant(it->second.offset));
    };
    for (const std::string &argument : arguments) place(argument);
    if (!result.empty()) place(result);
    Instruction &in = emit(CALL);
    in.list = (uint32_t)list;
    in.count = (uint8_t)arguments.size();
    in.sub = !result.empty();
    in.immediate = call_number(target);
}

bool Decoder::control()
{
    if (opcode == "bra") {
        emit(BRANCH);
        fixups.push_back({f.code.size() - 1, operands.at(0)});
    } else if (opcode == "brx") {
        uint32_t a = use(operands.at(0), 32);
        emit(BRANCH_TABLE).a = a;
        table_fixups.push_back({f.code.size() - 1, operands.at(1)});
    } else if (opcode == "ret") {
        emit(source.is_kernel ? EXIT : RETURN);
    } else if (opcode == "exit" && source.is_kernel) {
        emit(EXIT);
    } else if (opcode == "trap") {
        emit(TRAP);
    } else if (opcode == "membar" || opcode == "fence" || opcode == "pragma" || opcode == "prefetch" ||
               opcode == "prefetchu" || opcode == "griddepcontrol" || opcode == "nanosleep") {
        /* memory is never weak here */
    } else if (opcode == "cvta") {
        int bits = 64;
        uint32_t a = use(operands.at(1), bits), d = define(operands.at(0));
        Instruction &in = emit(space_named == GLOBAL ? MOV : CVTA);
        in.a = a, in.d = d;
        in.sub = space_named;
        if (has("to")) in.flags |= OTHER;
        if (space_named == PARAM) refuse("generic addresses of parameters");
    } else if (opcode == "isspacep") {
        uint32_t a = use(operands.at(1), 64), d = define(operands.at(0));
        Instruction &in = emit(ISSPACEP);
        in.a = a, in.d = d;
        in.sub = space_named;
    } else {
        return false;
    }
    return true;
}

/* --- barriers, warps, asynchronous copies, matrices --------------------------------------------------------------- */

bool Decoder::warp()
{
    size_t list = f.lists.size();
    if ((opcode == "bar" || opcode == "barrier") && has("warp")) {
        uint32_t a = use(operands.at(0), 32);
        emit(SYNCWARP).a = a;
    } else if (opcode == "bar" || opcode == "barrier") {
        const bool reduce = has("red");
        const std::string &number = operands.at(reduce ? 1 : 0);
        if (number != "0" || has("arrive") || operands.size() != (reduce ? 3u : 1u))
            refuse("a named or partial barrier");
        if (!reduce) {
            emit(BARRIER);
            return true;
        }
        bool negated;
        uint32_t a = use_predicate(operands.at(2), &negated), d = define(operands.at(0));
        Instruction &in = emit(BARRIER_REDUCE);
        in.a = a, in.d = d;
        in.sub = has("popc") ? 0 : has("and") ? 1 : 2;
        if (negated) in.flags |= OTHER;
    } else if (opcode == "shfl") {
        uint32_t a = use(operands.at(1), 32), b = use(operands.at(2), 32), c = use(operands.at(3), 32);
        f.lists.push_back(use(operands.at(4), 32));
        std::string to = operands.at(0), predicate;
        size_t bar = to.find('|');
        if (bar != std::string::npos) {
            predicate = to.substr(bar + 1);
            to.resize(bar);
        }
        uint32_t d = define(to);
        f.lists.push_back(define(predicate.empty() ? "_" : predicate));
        Instruction &in = emit(SHFL);
        in.a = a, in.b = b, in.c = c, in.d = d;
        in.list = (uint32_t)list;
        in.sub = has("up") ? 0 : has("down") ? 1 : has("bfly") ? 2 : 3;
    } else if (opcode == "vote") {
        bool negated;
        uint32_t a = use_predicate(operands.at(1), &negated), b = use(operands.at(2), 32), d = define(operands.at(0));
        Instruction &in = emit(VOTE);
        in.a = a, in.b = b, in.d = d;
        in.sub = has("ballot") ? 0 : has("any") ? 1 : has("all") ? 2 : 3;
        if (negated) in.flags |= OTHER;
        if (in.sub == 3) refuse("a vote that is not emulated");
    } else if (opcode == "redux") {
        uint32_t a = use(operands.at(1), 32), b = use(operands.at(2), 32), d = define(operands.at(0));
        if (is_float(type)) refuse("a reduction that is not emulated");
        Instruction &in = emit(REDUX);
        in.a = a, in.b = b, in.d = d;
        in.sub = (uint8_t)(has("add")   ? '+'
                           : has("min") ? '<'
                           : has("max") ? '>'
                           : has("and") ? '&'
                           : has("or")  ? '|'
                                        : '^');
    } else if (opcode == "cp") {
        if (has("bulk") || !has("async")) refuse("an instruction that is not emulated");
        if (has("commit_group")) {
            emit(CP_COMMIT);
        } else if (has("wait_group") || has("wait_all")) {
            int64_t groups = has("wait_all") ? -1 : strtol(operands.at(0).c_str(), nullptr, 0);
            emit(CP_WAIT).immediate = groups;
        } else if (has("mbarrier")) {
            refuse("an instruction that is not emulated");
        } else {
            Address to = address(operands.at(0)), from_ = address(operands.at(1));
            int64_t bytes = strtol(operands.at(2).c_str(), nullptr, 0);
            uint32_t c = operands.size() > 3 ? use(operands[3], 32) : constant((uint64_t)bytes);
            Instruction &in = emit(CP_ASYNC);
            in.a = to.base, in.b = from_.base, in.c = c;
            in.width = (uint8_t)bytes;
            in.immediate = to.offset;
            f.lists.push_back(constant((uint64_t)from_.offset));
            in.list = (uint32_t)list;
        }
    } else if (opcode == "ldmatrix") {
        int n = has("x4") ? 4 : has("x2") ? 2 : 1;
        if (!has("m8n8") || !has("b16")) refuse("this ldmatrix");
        Address at = address(operands.at(1));
        if (define_list(operands.at(0)) != n) refuse("a vector of another length");
        Instruction &in = emit(LDMATRIX_N);
        in.a = at.base;
        in.immediate = at.offset;
        in.list = (uint32_t)list;
        in.count = (uint8_t)n;
        in.sub = has("trans");
    } else if (opcode == "mma") {
        std::string shape;
        for (const std::string &m : modifiers) shape += "." + m;
        if (shape != ".sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") refuse("this mma");
        bool right = use_list(operands.at(1), 32) == 4 && use_list(operands.at(2), 32) == 2 &&
                     use_list(operands.at(3), 32) == 4 && define_list(operands.at(0)) == 4;
        if (!right) refuse("operands of another length");
        emit(MMA_16816).list = (uint32_t)list;
    } else {
        return false;
    }
    return true;
}

} // namespace ptx
} // namespace cudaemu
#endif
