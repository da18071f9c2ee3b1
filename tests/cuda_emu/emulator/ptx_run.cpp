/* Runs decoded PTX: one call of `execute` is one CUDA thread's way through a function. */
#ifndef CUDAEMU_CHECK
#include "ptx_access.h"

#include <algorithm>
#include <cmath>

namespace cudaemu
{
namespace ptx
{

/* less 1, equal 2, greater 4, not comparable 8 */
template <class T> static inline unsigned outcome(T a, T b)
{
    return (unsigned)(a < b) | (unsigned)(a == b) << 1 | (unsigned)(a > b) << 2;
}
static inline unsigned float_outcome(double a, double b)
{
    unsigned o = outcome(a, b);
    return o ? o : 8;
}
static inline float flush_subnormal(float f, bool flush)
{
    return flush && std::fabs(f) < 1.17549435e-38f ? std::copysign(0.0f, f) : f;
}

static inline void set_predicate(const Context &x, const Instruction &in, unsigned result)
{
    uint64_t *R = x.slots;
    bool p = (result & in.count) != 0;
    if (__builtin_expect(in.sub | in.width, 0)) {
        bool c = (R[in.c] != 0) != ((in.flags & OTHER) != 0), q = !p;
        if (in.sub == 1) p = p && c, q = q && c;
        if (in.sub == 2) p = p || c, q = q || c;
        if (in.sub == 3) p = p != c, q = q != c;
        if (in.width) R[x.f.lists[in.list]] = q;
    }
    R[in.d] = p;
}

/* --- the loop ----------------------------------------------------------------------------------------------------- */

/* An instruction that computes one result; one that accesses memory at an address that it computes. */
#define RESULT(code, value)                                                                                            \
    case code:                                                                                                         \
        R[in.d] = (value);                                                                                             \
        break
#define PTX_ACCESS(place)                                                                                              \
    {                                                                                                                  \
        const unsigned bytes = in.width * in.count;                                                                    \
        const uint64_t address = R[in.a] + (uint64_t)in.immediate;                                                     \
        (void)address, (void)bytes;                                                                                    \
        place;                                                                                                         \
        break;                                                                                                         \
    }

/* COUNT: notes how often each instruction runs, and what memory it touches. */
template <bool COUNT> static void execute(const Context &x)
{
    const Instruction *const code = x.f.code.data();
    uint64_t *const R = x.slots;
    uint32_t *const executed = COUNT ? counts_of_thread(x.f) : nullptr;
    for (const Instruction *at = code;; at++) {
        const Instruction &in = *at;
        const size_t pc = (size_t)(at - code);
        if (COUNT) executed[pc]++;
        switch (in.code) {
            RESULT(MOV, R[in.a]);
        case MOV_PACK:
            do_pack(x, in);
            break;
        case MOV_UNPACK:
            do_unpack(x, in);
            break;
            RESULT(EXTEND, extend(in, R[in.a]));
            RESULT(CVT, convert(in, R[in.a], R[in.b]));
            RESULT(SELP, R[in.c] ? R[in.a] : R[in.b]);

            RESULT(ADD_16, (uint16_t)(R[in.a] + R[in.b]));
            RESULT(ADD_32, (uint32_t)(R[in.a] + R[in.b]));
            RESULT(ADD_64, R[in.a] + R[in.b]);
            RESULT(SUB_16, (uint16_t)(R[in.a] - R[in.b]));
            RESULT(SUB_32, (uint32_t)(R[in.a] - R[in.b]));
            RESULT(SUB_64, R[in.a] - R[in.b]);
            RESULT(MUL_16, (uint16_t)(R[in.a] * R[in.b]));
            RESULT(MUL_32, (uint32_t)(R[in.a] * R[in.b]));
            RESULT(MUL_64, R[in.a] * R[in.b]);
            RESULT(MAD_32, (uint32_t)(R[in.a] * R[in.b] + R[in.c]));
            RESULT(MAD_64, R[in.a] * R[in.b] + R[in.c]);
        case MUL_WIDE_16:
            R[in.d] =
                is_signed(in.type) ? (uint32_t)((int16_t)R[in.a] * (int16_t)R[in.b]) : (uint32_t)(R[in.a] * R[in.b]);
            break;
            RESULT(MUL_WIDE_S32, (uint64_t)((int64_t)(int32_t)R[in.a] * (int32_t)R[in.b]));
            RESULT(MUL_WIDE_U32, R[in.a] * R[in.b]);
            RESULT(MAD_WIDE_S32, (uint64_t)((int64_t)(int32_t)R[in.a] * (int32_t)R[in.b]) + R[in.c]);
            RESULT(MAD_WIDE_U32, R[in.a] * R[in.b] + R[in.c]);
            RESULT(MUL_HI, multiply_high(in.type, R[in.a], R[in.b]));
            RESULT(MAD_HI, low_bits(multiply_high(in.type, R[in.a], R[in.b]) + R[in.c], in.width));
        case DIV_REM:
            do_divide(x, pc, in);
            break;
            RESULT(MIN_MAX, min_max(in, R[in.a], R[in.b]));
            RESULT(NEG, low_bits((uint64_t)0 - R[in.a], in.width));
            RESULT(ABS, low_bits(sign_extended(R[in.a], in.width) < 0 ? (uint64_t)0 - R[in.a] : R[in.a], in.width));

            RESULT(AND, R[in.a] & R[in.b]);
            RESULT(OR, R[in.a] | R[in.b]);
            RESULT(XOR, R[in.a] ^ R[in.b]);
            RESULT(NOT, low_bits(~R[in.a], in.width));
            RESULT(SHL_32, (uint32_t)R[in.b] > 31 ? 0 : (uint32_t)(R[in.a] << (uint32_t)R[in.b]));
            RESULT(SHL_64, (uint32_t)R[in.b] > 63 ? 0 : R[in.a] << (uint32_t)R[in.b]);
            RESULT(SHR_U32, (uint32_t)R[in.b] > 31 ? 0 : R[in.a] >> (uint32_t)R[in.b]);
            RESULT(SHR_S32, (uint32_t)((int32_t)R[in.a] >> std::min<uint32_t>((uint32_t)R[in.b], 31)));
            RESULT(SHIFT, shift(in, R[in.a], R[in.b]));
            RESULT(LOP3, lop3((unsigned)in.immediate, R[in.a], R[in.b], R[in.c]));
            RESULT(SHF, funnel_shift(in, R[in.a], R[in.b], R[in.c]));
            RESULT(PRMT, permute(R[in.a], R[in.b], R[in.c]));
            RESULT(BFE, extract_field(in, R[in.a], R[in.b], R[in.c]));
            RESULT(BFI, insert_field(in, R[in.a], R[in.b], R[in.c], R[x.f.lists[in.list]]));
            RESULT(BFIND, find_bit(in, R[in.a]));
            RESULT(BREV, reversed(R[in.a], in.width));
            RESULT(POPC, (uint64_t)__builtin_popcountll(R[in.a]));
            RESULT(CLZ, R[in.a] ? (uint64_t)__builtin_clzll(R[in.a]) - (64 - in.width) : in.width);

        case SETP_S32:
            set_predicate(x, in, outcome((int32_t)R[in.a], (int32_t)R[in.b]));
            break;
        case SETP_U32:
            set_predicate(x, in, outcome((uint32_t)R[in.a], (uint32_t)R[in.b]));
            break;
        case SETP_S64:
            set_predicate(x, in, outcome((int64_t)R[in.a], (int64_t)R[in.b]));
            break;
        case SETP_U64:
            set_predicate(x, in, outcome(R[in.a], R[in.b]));
            break;
        case SETP_S16:
            set_predicate(x, in, outcome((int16_t)R[in.a], (int16_t)R[in.b]));
            break;
        case SETP_U16:
            set_predicate(x, in, outcome((uint16_t)R[in.a], (uint16_t)R[in.b]));
            break;
        case SETP_F32: {
            const bool flush = in.flags & FTZ;
            set_predicate(
                x, in,
                float_outcome(flush_subnormal(as_float(R[in.a]), flush), flush_subnormal(as_float(R[in.b]), flush)));
            break;
        }
        case SETP_F64:
            set_predicate(x, in, float_outcome(as_double(R[in.a]), as_double(R[in.b])));
            break;
        case SETP_HALF:
            set_predicate(x, in, float_outcome(half_value(in.type, R[in.a]), half_value(in.type, R[in.b])));
            break;

            RESULT(ADD_F32, of_float(as_float(R[in.a]) + as_float(R[in.b])));
            RESULT(SUB_F32, of_float(as_float(R[in.a]) - as_float(R[in.b])));
            RESULT(MUL_F32, of_float(as_float(R[in.a]) * as_float(R[in.b])));
            RESULT(FMA_F32, of_float(std::fma(as_float(R[in.a]), as_float(R[in.b]), as_float(R[in.c]))));
            RESULT(DIV_F32, of_float(as_float(R[in.a]) / as_float(R[in.b])));
            RESULT(MIN_F32, of_float(std::fmin(as_float(R[in.a]), as_float(R[in.b]))));
            RESULT(MAX_F32, of_float(std::fmax(as_float(R[in.a]), as_float(R[in.b]))));
            RESULT(NEG_F32, R[in.a] ^ 0x80000000u);
            RESULT(ABS_F32, R[in.a] & 0x7fffffffu);
            RESULT(FLOAT32, float32(in, R[in.a], R[in.b], R[in.c]));
            RESULT(FLOAT64, float64(in, R[in.a], R[in.b], R[in.c]));
            RESULT(HALF, half(in, R[in.a], R[in.b], R[in.c]));

        case LOAD_GLOBAL:
            PTX_ACCESS({
                const char *p = global_place(x, pc, address, bytes, false);
                if (COUNT) count_access(p, bytes, false, false);
                load_into(x, in, p);
            })
        case LOAD_SHARED:
            PTX_ACCESS({
                const char *p = shared_place(x, pc, address, bytes, false);
                if (COUNT) count_access(p, bytes, false, true);
                load_into(x, in, p);
            })
        case LOAD_PARAM:
            PTX_ACCESS(load_into(x, in, parameter_place(x, pc, address, bytes)))
        case LOAD_LOCAL:
            PTX_ACCESS(load_into(x, in, local_place(x, pc, address, bytes, false)))
        case LOAD_GENERIC:
            PTX_ACCESS({
                Place p = generic_place(x, pc, address, bytes, false);
                if (COUNT && p.counted) count_access(p.p, bytes, false, p.shared);
                load_into(x, in, p.p);
            })
        case STORE_GLOBAL:
            PTX_ACCESS({
                char *p = global_place(x, pc, address, bytes, true);
                if (COUNT) count_access(p, bytes, true, false);
                store_from(x, in, p);
            })
        case STORE_SHARED:
            PTX_ACCESS({
                char *p = shared_place(x, pc, address, bytes, true);
                if (COUNT) count_access(p, bytes, true, true);
                store_from(x, in, p);
            })
        case STORE_PARAM:
            PTX_ACCESS(store_from(x, in, parameter_place(x, pc, address, bytes)))
        case STORE_LOCAL:
            PTX_ACCESS(store_from(x, in, local_place(x, pc, address, bytes, true)))
        case STORE_GENERIC:
            PTX_ACCESS({
                Place p = generic_place(x, pc, address, bytes, true);
                if (COUNT && p.counted) count_access(p.p, bytes, true, p.shared);
                store_from(x, in, p.p);
            })
        case ATOMIC:
            do_atomic(x, pc, in);
            break;
        case CVTA: {
            uint64_t base = in.sub == SHARED  ? (uint64_t)builtins.dynamic_shared
                            : in.sub == LOCAL ? (uint64_t)x.local
                                              : 0;
            R[in.d] = in.flags & OTHER ? R[in.a] - base : R[in.a] + base;
            break;
        }
        case ISSPACEP: {
            bool shared = builtins.dynamic_shared && R[in.a] - (uint64_t)builtins.dynamic_shared < running.shared_bytes;
            bool local = R[in.a] - (uint64_t)x.local < x.f.local_bytes;
            R[in.d] = in.sub == SHARED ? shared : in.sub == LOCAL ? local : !shared && !local;
            break;
        }

        case BRANCH:
            at = code + in.immediate - 1;
            break;
        case BRANCH_IF:
            if (R[in.a]) at = code + in.immediate - 1;
            break;
        case BRANCH_IF_NOT:
            if (!R[in.a]) at = code + in.immediate - 1;
            break;
        case BRANCH_TABLE: {
            const auto &table = x.f.branch_tables[(size_t)in.immediate];
            if (R[in.a] >= table.size()) stop(x, pc, "a branch beyond its table");
            at = code + table[R[in.a]] - 1;
            break;
        }
        case RETURN:
        case EXIT:
            return;
        case CALL:
            do_call(x, pc, in);
            break;
        case TRAP:
            stop(x, pc, "trap");

        case BARRIER:
            block_barrier(x.f.file.c_str(), x.f.lines[pc]);
            break;
        case BARRIER_REDUCE: {
            bool p = (R[in.a] != 0) != ((in.flags & OTHER) != 0);
            Reduce kind = in.sub == 0 ? Reduce::COUNT : in.sub == 1 ? Reduce::AND : Reduce::OR;
            R[in.d] = (uint64_t)block_barrier_reduce(kind, p, x.f.file.c_str(), x.f.lines[pc]);
            break;
        }
        case SYNCWARP:
            warp_collective((uint32_t)R[in.a], cudaemu::SYNCWARP, {nullptr, nullptr, 0}, x.f.file.c_str(),
                            x.f.lines[pc]);
            break;
        case SHFL:
            do_shuffle(x, pc, in);
            break;
        case VOTE:
            do_vote(x, pc, in);
            break;
        case REDUX:
            do_redux(x, pc, in);
            break;
        case CP_ASYNC:
            do_cp_async(x, pc, in);
            break;
        case CP_COMMIT:
            cp_async_commit();
            break;
        case CP_WAIT:
            if (in.immediate < 0) cp_async_commit();
            cp_async_wait(in.immediate < 0 ? 0 : (int)in.immediate);
            break;
        case LDMATRIX_N:
            do_ldmatrix(x, pc, in);
            break;
        case MMA_16816:
            do_mma(x, pc, in);
            break;
        case CHECK_WRITTEN:
            if (R[in.a] == UNWRITTEN)
                stop(x, pc, "register %s is unwritten, or computed from what is", x.f.register_names[in.a].c_str());
            break;
        case SPREAD_UNWRITTEN:
            if (__builtin_expect(R[in.a] == UNWRITTEN, 0)) {
                R[in.d] = UNWRITTEN;
                at = code + in.immediate - 1;
            }
            break;
        default:
            __builtin_unreachable();
        }
    }
}

void run_function(Function &f, uint64_t *slots, char *parameters, size_t bytes, char *local)
{
    const Context context = {f, slots, parameters, bytes, local};
    if (count_accesses)
        execute<true>(context);
    else
        execute<false>(context);
}

} // namespace ptx
} // namespace cudaemu
#endif
