/* Registers that may be read before anything was written to them: those reads get a CHECK_WRITTEN before them, all
 * other reads cost nothing. A plain mov may copy what was never written; whoever uses the copy is checked instead. */
#ifndef CUDAEMU_CHECK
#include "ptx_program.h"

namespace cudaemu
{
namespace ptx
{

typedef std::vector<uint64_t> Set; /* of registers */

static bool contains(const Set &s, uint32_t r)
{
    return s[r / 64] >> r % 64 & 1;
}
static void put(Set &s, uint32_t r, bool in)
{
    s[r / 64] = (s[r / 64] & ~(1ull << r % 64)) | (uint64_t)in << r % 64;
}

static bool ends_flow(uint16_t code)
{
    return code == BRANCH || code == BRANCH_TABLE || code == RETURN || code == EXIT || code == TRAP;
}
static bool jumps(uint16_t code)
{
    return code == BRANCH || code == BRANCH_IF || code == BRANCH_IF_NOT;
}

struct Blocks {
    std::vector<uint32_t> begin; /* and the end of the last one */
    std::vector<int> of;         /* by instruction: the block that begins there, or -1 */
};

static Blocks find_blocks(const Function &f)
{
    std::vector<bool> leader(f.code.size() + 1, false);
    leader[0] = true;
    for (size_t i = 0; i < f.code.size(); i++) {
        if (jumps(f.code[i].code)) leader[(size_t)f.code[i].immediate] = true;
        if (f.code[i].code == BRANCH_TABLE)
            for (int64_t target : f.branch_tables[(size_t)f.code[i].immediate]) leader[(size_t)target] = true;
        if (jumps(f.code[i].code) || ends_flow(f.code[i].code)) leader[i + 1] = true;
    }
    Blocks b;
    b.of.assign(f.code.size() + 1, -1);
    for (size_t i = 0; i < f.code.size(); i++)
        if (leader[i]) {
            b.of[i] = (int)b.begin.size();
            b.begin.push_back((uint32_t)i);
        }
    b.begin.push_back((uint32_t)f.code.size());
    return b;
}

/* One result, and nothing else happens. */
static bool is_pure(uint16_t code)
{
    return (code <= HALF && code != MOV_UNPACK && code != DIV_REM) || code == CVTA;
}
/* Lanes may hand each other what nobody uses. */
static bool is_exchange(uint16_t code)
{
    return code == SHFL || code == VOTE || code == MOV_UNPACK;
}

/* The registers written for sure after instruction i, given those before. */
static void pass(const Function &f, size_t i, const std::vector<std::vector<uint32_t>> &reads,
                 const std::vector<std::vector<uint32_t>> &writes, Set &written)
{
    bool all = true;
    if (is_pure(f.code[i].code))
        for (uint32_t r : reads[i]) all = all && (r >= f.registers || contains(written, r));
    for (uint32_t w : writes[i]) put(written, w, all);
}

static std::vector<Set> solve(const Function &f, const Blocks &blocks, const std::vector<std::vector<uint32_t>> &reads,
                              const std::vector<std::vector<uint32_t>> &writes)
{
    const size_t n = blocks.begin.size() - 1, words = f.registers / 64 + 1;
    std::vector<Set> before(n, Set(words, ~0ull)); /* everything, until a path says otherwise */
    std::vector<size_t> work;
    before[0].assign(words, 0);
    for (size_t b = n; b-- > 0;) work.push_back(b);
    std::vector<bool> queued(n, true);
    while (!work.empty()) {
        size_t b = work.back();
        work.pop_back();
        queued[b] = false;
        Set written = before[b];
        const size_t end = blocks.begin[b + 1];
        for (size_t i = blocks.begin[b]; i < end; i++) pass(f, i, reads, writes, written);
        std::vector<int64_t> next;
        const Instruction &last = f.code[end - 1];
        if (jumps(last.code)) next.push_back(last.immediate);
        if (last.code == BRANCH_TABLE) next = f.branch_tables[(size_t)last.immediate];
        if (!ends_flow(last.code) && end < f.code.size()) next.push_back((int64_t)end);
        for (int64_t target : next) {
            size_t to = (size_t)blocks.of[(size_t)target];
            bool changed = false;
            for (size_t w = 0; w < words; w++) {
                uint64_t both = before[to][w] & written[w];
                changed = changed || both != before[to][w];
                before[to][w] = both;
            }
            if (changed && !queued[to]) {
                queued[to] = true;
                work.push_back(to);
            }
        }
    }
    return before;
}

void find_unwritten(Function &f, const std::vector<std::vector<uint32_t>> &reads,
                    const std::vector<std::vector<uint32_t>> &writes)
{
    if (f.code.empty()) return;
    const Blocks blocks = find_blocks(f);
    const std::vector<Set> before = solve(f, blocks, reads, writes);
    std::vector<Instruction> code;
    std::vector<int> lines;
    std::vector<int64_t> moved(f.code.size() + 1);
    Set written;
    for (size_t i = 0; i < f.code.size(); i++) {
        if (blocks.of[i] >= 0) written = before[(size_t)blocks.of[i]];
        moved[i] = (int64_t)code.size();
        const Instruction &in = f.code[i];
        const bool pure = is_pure(in.code), copies = in.code == MOV || is_exchange(in.code);
        Set known = written; /* what need not be looked at again */
        for (uint32_t r : reads[i]) {
            if (r >= f.registers || contains(known, r)) continue;
            f.poison = true;
            put(known, r, true);
            if (copies || (in.code == SELP && r != in.c)) continue;
            Instruction check = {};
            check.code = pure ? SPREAD_UNWRITTEN : CHECK_WRITTEN;
            check.a = r;
            check.d = in.d;
            check.immediate = (int64_t)i + 1;
            code.push_back(check);
            lines.push_back(f.lines[i]);
        }
        code.push_back(f.code[i]);
        lines.push_back(f.lines[i]);
        pass(f, i, reads, writes, written);
    }
    moved[f.code.size()] = (int64_t)code.size();
    for (Instruction &in : code)
        if (jumps(in.code) || in.code == SPREAD_UNWRITTEN) in.immediate = moved[(size_t)in.immediate];
    for (auto &table : f.branch_tables)
        for (int64_t &target : table) target = moved[(size_t)target];
    f.code.swap(code);
    f.lines.swap(lines);
}

} // namespace ptx
} // namespace cudaemu
#endif
