/* PTX programs, decoded. Internal to PTX mode.
 *
 * An instruction names its operands by slots of the thread's frame: registers first, then the constants of the
 * function, then special registers, so that reading an operand is always one load. Every slot has 64 bits; what is
 * narrower is zero-extended. */
#ifndef CUDAEMU_PTX_PROGRAM_H
#define CUDAEMU_PTX_PROGRAM_H

#include "ptx.h"

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

namespace cudaemu
{
namespace ptx
{

enum Type : uint8_t {
    NONE,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    B32,
    U32,
    S32,
    B64,
    U64,
    S64,
    F16,
    BF16,
    F16X2,
    BF16X2,
    F32,
    F64,
    PRED
};
enum Space : uint8_t { GENERIC, GLOBAL, SHARED, PARAM, LOCAL, CONSTANT };

/* Codes of integer arithmetic end in their width; signed and unsigned ones differ where it matters. */
enum Code : uint16_t {
    MOV,
    MOV_PACK,
    MOV_UNPACK,
    EXTEND,
    CVT,
    SELP,
    ADD_16,
    ADD_32,
    ADD_64,
    SUB_16,
    SUB_32,
    SUB_64,
    MUL_16,
    MUL_32,
    MUL_64,
    MAD_32,
    MAD_64,
    MUL_WIDE_S32,
    MUL_WIDE_U32,
    MAD_WIDE_S32,
    MAD_WIDE_U32,
    MUL_HI,
    MAD_HI,
    MUL_WIDE_16,
    DIV_REM,
    MIN_MAX,
    NEG,
    ABS,
    AND,
    OR,
    XOR,
    NOT,
    SHL_32,
    SHL_64,
    SHR_U32,
    SHR_S32,
    SHIFT,
    LOP3,
    SHF,
    PRMT,
    BFE,
    BFI,
    BFIND,
    BREV,
    POPC,
    CLZ,
    SETP_S32,
    SETP_U32,
    SETP_S64,
    SETP_U64,
    SETP_S16,
    SETP_U16,
    SETP_F32,
    SETP_F64,
    SETP_HALF,
    ADD_F32,
    SUB_F32,
    MUL_F32,
    FMA_F32,
    DIV_F32,
    MIN_F32,
    MAX_F32,
    NEG_F32,
    ABS_F32,
    FLOAT32,
    FLOAT64,
    HALF,
    LOAD_GLOBAL,
    LOAD_SHARED,
    LOAD_PARAM,
    LOAD_LOCAL,
    LOAD_GENERIC,
    STORE_GLOBAL,
    STORE_SHARED,
    STORE_PARAM,
    STORE_LOCAL,
    STORE_GENERIC,
    ATOMIC,
    CVTA,
    ISSPACEP,
    BRANCH,
    BRANCH_IF,
    BRANCH_IF_NOT,
    BRANCH_TABLE,
    SKIP_IF,
    SKIP_IF_NOT,
    RETURN,
    EXIT,
    CALL,
    TRAP,
    BARRIER,
    BARRIER_REDUCE,
    SYNCWARP,
    SHFL,
    VOTE,
    REDUX,
    CP_ASYNC,
    CP_COMMIT,
    CP_WAIT,
    LDMATRIX_N,
    MMA_16816,
    CHECK_WRITTEN,
    SPREAD_UNWRITTEN,
};
/* What FLOAT32, FLOAT64 and HALF compute; DIV_REM, MIN_MAX, SHIFT, ATOMIC have the same field for theirs. */
enum Sub : uint8_t {
    F_ADD,
    F_SUB,
    F_MUL,
    F_FMA,
    F_DIV,
    F_MIN,
    F_MAX,
    F_NEG,
    F_ABS,
    F_SQRT,
    F_RSQRT,
    F_RCP,
    F_EX2,
    F_LG2,
    F_SIN,
    F_COS,
    F_TANH,
    F_COPYSIGN,
    F_TESTP_FINITE,
    F_TESTP_INFINITE,
    F_TESTP_NAN,
    A_ADD,
    A_MIN,
    A_MAX,
    A_AND,
    A_OR,
    A_XOR,
    A_EXCH,
    A_CAS,
    A_INC,
    A_DEC,
};
enum Flag : uint8_t {
    FTZ = 1,
    SATURATE = 2,
    ROUND_DOWN = 4,
    ROUND_UP = 8,
    ROUND_ZERO = 16,
    ROUND_NEAREST = 32,
    NAN_WINS = 64,
    OTHER = 128
};

struct Instruction {
    uint16_t code;
    uint8_t sub, flags;
    Type type, from;
    uint8_t width; /* bytes of an access; bits of a result */
    uint8_t count; /* of a vector; of list */
    uint32_t d, a, b, c;
    uint32_t list;     /* in Function::lists: the slots of vectors and of rarely used operands */
    int64_t immediate; /* an offset, a branch's target, a table */
};

struct Parameter {
    uint32_t offset, bytes;
};
struct Function {
    std::string name, file;
    bool is_kernel = false;
    std::vector<Instruction> code;
    std::vector<int> lines;
    std::vector<uint32_t> lists;
    std::vector<std::vector<int64_t>> branch_tables;
    uint32_t registers = 0;                         /* slots [0, registers) */
    std::vector<uint64_t> constants;                /* slots from `registers` on */
    std::vector<std::pair<uint32_t, int>> specials; /* slot, which: at the end */
    uint32_t slots = 0;
    std::vector<std::string> register_names;
    std::map<std::string, Parameter> parameters;
    std::vector<Parameter> parameter_order; /* without the result */
    uint32_t parameter_bytes = 0, result_bytes = 0, shared_bytes = 0, local_bytes = 0, argument_bytes = 0;
    unsigned threads_max = 0;
    bool poison = false; /* some register may be read before it is written */
    /* where counts are asked for: by instruction, of all threads and of all warps; and of each thread of the running
     * block since its last barrier */
    std::vector<int64_t> executed, issued;
    std::vector<uint32_t> of_thread; /* [threads, code] */
};
/* What a register holds before anything is written to it. */
const uint64_t UNWRITTEN = 0xfff7dead7fc0deadull;

/* One statement, up to its semicolon. */
struct Statement {
    std::string text;
    int line;
};
/* A function as text. */
struct Source {
    std::string file, head;
    bool is_kernel;
    std::vector<Statement> body;
};
/* Variables outside functions live in the arena (.global, .const), or stand for shared memory. */
struct Module {
    std::unordered_map<std::string, uint64_t> variables;
    std::unordered_map<std::string, std::string> shared; /* declarations; a kernel that uses one gets it */
    std::string dynamic_shared;
};

std::vector<Source> parse(const std::string &file, Module &module);
Function decode(const Source &source, const Module &module);
void find_unwritten(Function &function, const std::vector<std::vector<uint32_t>> &reads,
                    const std::vector<std::vector<uint32_t>> &writes);
/* By name; null if there is none. Functions of calls are found when they are called. */
Function *function_named(const std::string &name);
const std::string &call_target(int64_t number);
int64_t call_number(const std::string &name);

/* Numbers of special registers. */
extern const char *const SPECIALS[];
enum { SPECIAL_COUNT = 24 };

std::string trimmed(const std::string &s); /* without blanks at its ends */

[[noreturn]] void refuse(const std::string &file, int line, const std::string &text, const char *why);

} // namespace ptx
} // namespace cudaemu

#endif
