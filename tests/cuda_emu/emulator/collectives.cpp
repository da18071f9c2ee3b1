/* What the operations of a warp do, once all lanes have arrived; and asynchronous copies.
 *
 * The lane layouts of mma.sync and ldmatrix are those of the PTX ISA (compared with NVIDIA's formulas as MLIR quotes
 * them, and TVM's for ldmatrix). Compiled and interpreted kernels share them: that both agree says nothing about them.
 */
#include "scheduler.h"
#include "check.h"
#include "stats.h"

#include <cstring>

namespace cudaemu
{

/* CUDA leaves a value undefined: NaN, and an odd integer. */
static const uint64_t UNDEFINED = 0x7fc0dead7fc0deadull;

static void run_nothing(Lane *, unsigned) {}

static void run_shuffle(Lane *lanes, unsigned arrived)
{
    counters.shuffles++;
    for (unsigned left = arrived; left; left &= left - 1) {
        Lane &lane = lanes[__builtin_ctz(left)];
        int source = static_cast<const ShuffleIn *>(lane.in)->source;
        bool defined = source >= 0 && source < 32 && (arrived >> source & 1);
        if (!defined) check_undefined_shuffle(__builtin_ctz(left), source, arrived);
        *static_cast<uint64_t *>(lane.out) =
            defined ? static_cast<const ShuffleIn *>(lanes[source].in)->value : UNDEFINED;
    }
}

static void run_ballot(Lane *lanes, unsigned arrived)
{
    unsigned result = 0;
    for (unsigned left = arrived; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        result |= (unsigned)(lanes[l].argument != 0) << l;
    }
    for (unsigned left = arrived; left; left &= left - 1)
        *static_cast<unsigned *>(lanes[__builtin_ctz(left)].out) = result;
}

static void run_reduce(Lane *lanes, unsigned arrived)
{
    const ReduceIn *first = static_cast<const ReduceIn *>(lanes[__builtin_ctz(arrived)].in);
    int64_t result = first->value;
    for (unsigned left = arrived & (arrived - 1); left; left &= left - 1) {
        int64_t v = static_cast<const ReduceIn *>(lanes[__builtin_ctz(left)].in)->value;
        switch (first->kind) {
        case '+':
            result += v;
            break;
        case '<':
            result = v < result ? v : result;
            break;
        case '>':
            result = v > result ? v : result;
            break;
        case '&':
            result &= v;
            break;
        case '|':
            result |= v;
            break;
        default:
            result ^= v;
        }
    }
    for (unsigned left = arrived; left; left &= left - 1)
        *static_cast<int64_t *>(lanes[__builtin_ctz(left)].out) = result;
}

static inline float bf16_half(uint32_t pair, int high)
{
    uint32_t bits = high ? pair & 0xffff0000u : pair << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void run_mma(Lane *lanes, unsigned)
{
    float A[16][16], B[16][8], D[16][8];
    counters.mma++;
    for (int l = 0; l < 32; l++) {
        const MmaOperands *m = static_cast<const MmaOperands *>(lanes[l].in);
        int g = l / 4, t = l % 4;
        for (int i = 0; i < 8; i++)
            A[i & 2 ? g + 8 : g][2 * t + (i & 1) + (i >= 4 ? 8 : 0)] = bf16_half(m->a[i / 2], i & 1);
        for (int i = 0; i < 4; i++) B[2 * t + (i & 1) + (i >= 2 ? 8 : 0)][g] = bf16_half(m->b[i / 2], i & 1);
        for (int i = 0; i < 4; i++) D[i < 2 ? g : g + 8][2 * t + (i & 1)] = m->d[i];
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < 8; c++) D[r][c] += A[r][k] * B[k][c];
    for (int l = 0; l < 32; l++) {
        const MmaOperands *m = static_cast<const MmaOperands *>(lanes[l].in);
        int g = l / 4, t = l % 4;
        for (int i = 0; i < 4; i++) m->d[i] = D[i < 2 ? g : g + 8][2 * t + (i & 1)];
    }
}

static void run_ldmatrix(Lane *lanes, unsigned)
{
    auto row = [lanes](int l) { return static_cast<const MatrixRow *>(lanes[l].in); };
    int n = lanes[0].argument < 0 ? -lanes[0].argument : lanes[0].argument;
    counters.ldmatrix++;
    for (int l = 0; l < 32; l++)
        for (int k = 0; k < n; k++) {
            uint32_t pair = 0;
            for (int h = 0; h < 2; h++) {
                int r = l / 4, c = 2 * (l % 4) + h;
                uint32_t e = lanes[l].argument < 0 ? row(8 * k + c)->element[r] : row(8 * k + r)->element[c];
                pair |= e << 16 * h;
            }
            static_cast<uint32_t *>(lanes[l].out)[k] = pair;
        }
}

const WarpOperation SYNCWARP = {"__syncwarp", run_nothing, false, true};
const WarpOperation SHUFFLE = {"shuffle", run_shuffle, false, false};
const WarpOperation BALLOT = {"vote", run_ballot, false, false};
const WarpOperation REDUCE = {"reduce", run_reduce, false, false};
const WarpOperation MMA = {"mma.sync", run_mma, true, false};
const WarpOperation LDMATRIX = {"ldmatrix", run_ldmatrix, true, false};

/* --- cp.async ----------------------------------------------------------------------------------------------------- */

static void land(AsyncCopy &copy)
{
    if (copy.landed) return;
    copy.landed = true;
    if (copy.valid)
        memcpy(copy.to, copy.from, (size_t)copy.bytes);
    else
        memset(copy.to, 0, (size_t)copy.bytes);
}

void cp_async(void *shared, const void *global, int bytes, bool valid, const void *pc)
{
    if (((uintptr_t)shared | (uintptr_t)global) & (uintptr_t)(bytes - 1))
        fail("cp.async with a misaligned address: shared %p, global %p", shared, global);
    if (valid) check_access(global, (unsigned)bytes, false, false, pc);
    check_access(shared, (unsigned)bytes, true, false, pc);
    check_async_begin(shared, (unsigned)bytes);
    const CheckPause pause;
    counters.async_copies++;
    current->copies.push_back({shared, global, bytes, valid, false, current->copy_group});
    if (random_bits() & 1) land(current->copies.back());
}

void cp_async_commit()
{
    current->copy_group++;
}

void cp_async_wait(int groups_left)
{
    const CheckPause pause;
    auto &copies = current->copies;
    size_t n = 0;
    for (; n < copies.size() && copies[n].group + (unsigned)groups_left < current->copy_group; n++) {
        land(copies[n]);
        check_async_end(copies[n].to, (unsigned)copies[n].bytes);
    }
    copies.erase(copies.begin(), copies.begin() + (std::ptrdiff_t)n);
}

} // namespace cudaemu
