"""The GPUs and the time of a kernel on them. Nothing here was measured by us: published numbers (P) and assumptions (A).

A kernel's time is the largest of
  memory   its bytes over a share of the published bandwidth; no credit for what the L2 cache keeps between launches
  L2       of the attention kernels, all tiles that blocks load and all that they store, over the L2 cache's bandwidth
  tensor   its mma.sync over the rate of that instruction on this architecture
  issue    its warp instructions over 4 schedulers a multiprocessor, each busy as the warps it holds allow
  shared   its shared memory wavefronts over one (128 bytes) a clock and multiprocessor
stretched by the last, partly filled wave of blocks. A launch then takes at least LAUNCH_MIN, and a gap to the next.
"""

import heapq
import math
from dataclasses import dataclass

LAUNCH_MIN = 3e-6  # A: from the issue of this tool's request: "at least 3 us a launch"
LAUNCH_GAP = 1e-6  # A: from the end of a kernel to the start of the next in the same stream, launches queued ahead
GEMM_RAMP = 2e-6  # A: a product's first tiles come and its last ones are stored

BANDWIDTH_SHARE = 0.90  # A: long streaming kernels; a published copy and triad on an H100 reach 3.02 to 3.09 of 3.35 TB/s
STRIDED_SHARE = 0.60  # A: of the same, for transposing copies, gathers and strided operands

# A scheduler with w warps is idle when none of them is ready: busy = 1 - (1 - READY)^w. READY is the share of clocks in
# which one warp could issue, were it alone: dependent arithmetic waits 4 to 5 clocks, shared memory and mma.sync about 30.
READY = 0.28  # A
ISSUE_MAX = 0.90  # A
BARRIER_WAIT = 150  # A: clocks that a barrier costs a warp, by the skew of the others
TILE_WAIT = 600  # A: clocks from cp.async to data in use, L2 hits; tiles are loaded that early, so it counts for the first only


@dataclass(frozen=True)
class Gpu:
    name: str
    arch: str  # of the PTX, and of ptxas
    multiprocessors: int  # P
    clock: float  # Hz; A: under a training load (boost: A100 1.41, H100 1.83 to 1.98, B200 1.85 to 1.97 GHz)
    bandwidth: float  # bytes/s, P
    l2: float  # bytes/s, A: microbenchmarks find 4 to 5e12 on an A100, 5.5 to 7e12 on an H100; B200: by its clock and size
    peak: float  # flop/s, dense bf16, P
    mma_rate: float  # flop/s that mma.sync reaches at best
    product_share: float  # of the peak, for large products by the library
    shared: int  # bytes of a multiprocessor for blocks, P
    pcie: float  # bytes/s from pinned memory, A: 0.85 of the link
    note: str = ""


GPUS = [
    Gpu("A100", "80", 108, 1.41e9, 2.039e12, 4.5e12, 312e12, 0.90 * 312e12, 0.80, 164 << 10, 26e9,
        "SXM 80 GB. mma.sync is its native instruction; 0.90 of the peak before issue and shared memory are counted"),
    Gpu("H100", "90", 132, 1.755e9, 3.352e12, 5.5e12, 989e12, 0.62 * 989e12, 0.75, 228 << 10, 54e9,
        "SXM 80 GB. mma.sync: 0.62 of the peak, which is wgmma's, assumed: microbenchmarks say 0.60 to 0.65, and "
        "FlashAttention-2, an mma.sync program, gets 309 to 370 TFLOP/s at head size 128 in the FlashAttention-3 paper"),
    Gpu("H200", "90", 132, 1.755e9, 4.8e12, 5.5e12, 989e12, 0.62 * 989e12, 0.75, 228 << 10, 54e9, "as H100, with HBM3e"),
    Gpu("B200", "100", 148, 1.85e9, 7.7e12, 8e12, 2250e12, 148 * 1.85e9 * 0.62 * 4096, 0.72, 228 << 10, 54e9,
        "mma.sync is the legacy path beside tcgen05: assumed as on Hopper per clock and multiprocessor, 0.31 of the peak. "
        "FlashAttention-2 on a B200 (Dao-AILab/flash-attention issue 1589): forward 308 to 381 TFLOP/s at head size 64, "
        "0.55 of this rate, as on an H100. cuBLAS: 1610 TFLOP/s at 8192^3, 1532 at 4096^3, 1006 at 2048^3 "
        "(pyptx.dev/performance); the model here gives 1581, 1427, 1214"),
]

REGISTERS, WARPS_MAX, BLOCKS_MAX, SHARED_RESERVED = 65536, 64, 32, 1 << 10


def occupancy(gpu, threads, registers, shared):
    """Blocks of a kernel that a multiprocessor holds."""
    warps = (threads + 31) // 32
    of_warp = (registers * 32 + 255) // 256 * 256
    by_registers = REGISTERS // (of_warp * warps) if registers else BLOCKS_MAX
    by_shared = gpu.shared // (shared + SHARED_RESERVED)
    return max(1, min(by_registers, by_shared, WARPS_MAX // warps, BLOCKS_MAX))


def schedule_stretch(costs, slots):
    """Blocks, in their order, go to the slot that is free first: the time until the last ends over the ideal one."""
    costs = [c for c in costs if c > 0]
    if not costs:
        return 1.0
    ends = [0.0] * slots
    for c in costs:
        heapq.heapreplace(ends, ends[0] + c)
    return max(ends) / (sum(costs) / slots)


def memory_stretch(gpu, blocks, per_multiprocessor):
    """Streaming kernels: half of the multiprocessors already draw the whole bandwidth; the last wave draws less."""
    if blocks < gpu.multiprocessors // 2:
        return gpu.multiprocessors / 2 / blocks
    waves = blocks / (gpu.multiprocessors * per_multiprocessor)
    if waves <= 1:
        return 1.0
    return 1 + (math.ceil(waves) / waves - 1) / 2  # A: blocks start one by one, so half of the loss


def issue_share(warps_per_scheduler, waits=0.0):
    """The share of issue slots that is used; `waits`: of a warp's own time, waiting for tiles."""
    ready = READY * (1 - waits)
    return min(ISSUE_MAX, 1 - (1 - ready) ** warps_per_scheduler)


# Tiles of the library's products and what they reach of a large product's rate, A; the heuristic is taken to be right.
PRODUCT_TILES = [(256, 128, 1.0), (128, 256, 1.0), (128, 128, 0.9), (128, 64, 0.72), (64, 128, 0.72), (64, 64, 0.5)]
PRODUCT_FILL = 128  # A: steps of the inner dimension that a tile's start and end cost
UNALIGNED_SHARE = 0.5  # A: an inner or contiguous dimension that is no multiple of 8 takes kernels with narrow loads


def product_time(gpu, M, N, K, batch, nbytes, aligned=True):
    """Seconds, and what bounds it. Tiles are spread over all multiprocessors; the inner dimension may be split."""
    flops, best = 2.0 * M * N * K * batch, float("inf")
    for rows, columns, share in PRODUCT_TILES:
        tiles = math.ceil(M / rows) * math.ceil(N / columns) * batch
        padded = math.ceil(M / rows) * rows * math.ceil(N / columns) * columns / (M * N)
        for split in (1, 2, 4, 8, 16):
            if split > 1 and K // split < 512:
                break
            waves = tiles * split / gpu.multiprocessors
            quantised = 1 + (math.ceil(waves) / waves - 1) / 2  # A: tiles of other sizes, or shared ones, fill half of it
            inner = K / split
            rate = gpu.product_share * gpu.peak * share * inner / (inner + PRODUCT_FILL)
            seconds = flops * padded * quantised / rate
            seconds += 2.0 * (split - 1) * M * N * batch * 4 / (BANDWIDTH_SHARE * gpu.bandwidth)  # partial sums
            best = min(best, seconds)
    memory = nbytes / (BANDWIDTH_SHARE * gpu.bandwidth)
    if not aligned:
        best, memory = best / UNALIGNED_SHARE, memory * BANDWIDTH_SHARE / STRIDED_SHARE
    return max(best, memory) + GEMM_RAMP, "tensor" if best > memory else "memory"


def launch_time(seconds):
    return max(seconds, LAUNCH_MIN) + LAUNCH_GAP
