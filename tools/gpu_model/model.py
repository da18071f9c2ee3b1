"""The model: launches of a step, with what they do, and their times on a GPU."""

import os
from collections import OrderedDict
from dataclasses import dataclass, field

from . import eager, formulas, hardware
from .hardware import BANDWIDTH_SHARE, STRIDED_SHARE

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TILE, BLOCK_WARPS = 64, 4  # of the attention kernels: rows of a tile, warps
BARRIERS = {"attention_fwd_kernel": 2, "attention_bwd_kernel": 4}  # a tile pair
CONFLICTS = 2  # wavefronts of a load or store: 8 bytes a lane where rows meet all banks, else 4 bytes and two rows to a bank
MMA_FLOPS = 2 * 16 * 8 * 16
ATTENTION = ("attention_fwd_kernel", "attention_bwd_kernel")
BY_ELEMENT = ("gelu_forward_kernel", "gelu_backward_kernel", "adamw_kernel")


def read_resources():
    """(kernel, arch) -> registers, static shared bytes."""
    table = {}
    with open(os.path.join(SOURCE, "tests", "cuda_emu", "resources.tsv")) as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 6 and fields[1].startswith("sm_"):
                table[fields[0], fields[1][3:]] = int(fields[2]), int(fields[5])
    return table


@dataclass
class Counts:
    """What one step does, of one batch."""
    sizes: dict
    launches: list
    attention: dict = field(default_factory=dict)  # arch -> kernel -> counters of one head
    instructions: dict = field(default_factory=dict)  # arch -> kernel -> warp instructions a byte moved
    ratios: dict = field(default_factory=dict)  # arch -> kernel -> ptxas's instructions over PTX's


def tiles(n):
    return -(-n // TILE)


def tile_pairs(sizes):
    return sum(tiles(n) ** 2 for n in sizes["lengths"])


def block_costs(launch, sizes):
    """Tile pairs of each block, in the order of the blocks."""
    x, heads, _ = launch.grid
    return [tiles(n) if tile < tiles(n) else 0 for n in sizes["lengths"] for _ in range(heads) for tile in range(x)]


class Model:
    def __init__(self, gpu, counts, resources):
        self.gpu, self.counts, self.resources = gpu, counts, resources

    def occupancy_of(self, launch):
        registers, static = self.resources.get((launch.name, self.gpu.arch), (0, 0))
        return hardware.occupancy(self.gpu, launch.threads, registers, launch.shared + static)

    def attention_limits(self, launch):
        gpu, sizes = self.gpu, self.counts.sizes
        one = self.counts.attention[gpu.arch][launch.name]
        c = {k: v * sizes["H"] for k, v in one.items()}
        instructions = c["warp_instructions"] * self.counts.ratios[gpu.arch].get(launch.name, 1.0)
        blocks = self.occupancy_of(launch)
        pairs = tile_pairs(sizes) * sizes["H"]
        alone = instructions / (pairs * BLOCK_WARPS) / hardware.READY
        first_tiles = hardware.TILE_WAIT * sum(tiles(n) for n in sizes["lengths"]) * sizes["H"] / pairs
        lost = BARRIERS[launch.base] * hardware.BARRIER_WAIT + first_tiles
        waits = lost / (alone + lost)
        share = hardware.issue_share(blocks * BLOCK_WARPS / 4, waits)
        wavefronts = (4 * c["ldmatrix"] + c["async_copies"] / 8 + c["warp_narrow_loads"] +
                      CONFLICTS * (c["warp_shared_loads"] + c["warp_shared_stores"]))
        along = formulas.along_bytes(sizes) if launch.base == "attention_bwd_kernel" else 0
        limits = {"L2": (16 * c["async_copies"] + 2 * along) / gpu.l2,  # along: zeros, then sums
                  "tensor": c["mma"] * MMA_FLOPS / gpu.mma_rate,
                  "issue": instructions / (4 * gpu.multiprocessors * gpu.clock * share),
                  "shared": wavefronts / (gpu.multiprocessors * gpu.clock)}
        stretch = hardware.schedule_stretch(block_costs(launch, sizes), gpu.multiprocessors * blocks)
        return limits, stretch, {"mma_flops": c["mma"] * MMA_FLOPS, "warp_instructions": instructions,
                                 "blocks_per_multiprocessor": blocks, "issue_share": share, "stretch": stretch}

    def kernel(self, launch):
        """Seconds, the bound, details."""
        nbytes = formulas.launch_bytes(launch, self.counts.sizes)
        limits = {"memory": nbytes / (BANDWIDTH_SHARE * self.gpu.bandwidth)}
        details, stretch = {}, 1.0
        if launch.base in ATTENTION:
            more, stretch, details = self.attention_limits(launch)
            limits.update(more)
        else:
            resident = self.occupancy_of(launch)
            blocks = launch.grid[0] * launch.grid[1] * launch.grid[2]
            limits["memory"] *= hardware.memory_stretch(self.gpu, blocks, resident)
            each = self.counts.instructions.get(self.gpu.arch, {}).get(launch.name)
            if each:
                share = hardware.issue_share(resident * launch.threads / 128)
                limits["issue"] = nbytes * each / (4 * self.gpu.multiprocessors * self.gpu.clock * share)
        bound = max(limits, key=limits.get)
        details.update({k + "_s": v for k, v in limits.items()})
        return limits[bound] * stretch, bound, details

    def launch(self, launch):
        if launch.kind == "kernel":
            return self.kernel(launch)
        if launch.kind == "product":
            N, M, K, batch, *_ = launch.numbers  # in the library's order rows are columns
            aligned = all(x % 8 == 0 for x in contiguous_sides(launch, self.counts.sizes))
            seconds, bound = hardware.product_time(self.gpu, M, N, K, batch, formulas.product_bytes(launch), aligned)
            return seconds, bound, {"mma_flops": 2.0 * M * N * K * batch}
        rate = self.gpu.pcie if launch.kind == "copy" else BANDWIDTH_SHARE * self.gpu.bandwidth
        return launch.numbers[0] / rate, "memory", {}

    def step(self):
        """The launches by what they are, in order of appearance: name -> Total; and the seconds of all."""
        totals = OrderedDict()
        for launch in self.counts.launches:
            seconds, bound, details = self.launch(launch)
            key = describe(launch)
            total = totals.setdefault(key, Total(key))
            total.add(hardware.launch_time(seconds), formulas.launch_bytes(launch, self.counts.sizes), bound, details,
                      launch)
        return totals, sum(t.seconds for t in totals.values())

    def eager(self):
        """The same for the eager graph: group -> Total."""
        s, totals = self.counts.sizes, OrderedDict()
        rows = [(row, s["L"]) for row in eager.layer_forward(s) + eager.layer_backward(s)]
        rows += [(row, 1) for row in eager.outside(s)]
        for row, times in rows:
            if row.product:
                seconds, bound = hardware.product_time(self.gpu, *row.product, row.nbytes)
                flops = 2.0 * row.product[0] * row.product[1] * row.product[2] * row.product[3]
            else:
                share = STRIDED_SHARE if row.strided else BANDWIDTH_SHARE
                seconds, bound, flops = row.nbytes / (share * self.gpu.bandwidth), "memory", 0
            total = totals.setdefault(row.group, Total(row.group))
            total.add(hardware.launch_time(seconds), row.nbytes, bound, {"mma_flops": flops}, None, times * row.count)
        return totals, sum(t.seconds for t in totals.values())


def contiguous_sides(launch, sizes):
    """The sizes along which operands lie contiguous: widths of rows, which have to be multiples of 8 for wide loads."""
    N, _, K, batch, *_ = launch.numbers
    if launch.op == "attention_bwd":  # the transpose of along [T, R]; the head's columns
        return [sizes["R"], N]
    return [N] if launch.op == "linear_bwd_weight" else [N, K]


@dataclass
class Total:
    name: str
    launches: float = 0
    seconds: float = 0.0
    nbytes: float = 0.0
    flops: float = 0.0
    bounds: dict = field(default_factory=dict)
    details: dict = field(default_factory=dict)
    attention: bool = False

    def add(self, seconds, nbytes, bound, details, launch, times=1):
        self.launches += times
        self.seconds += seconds * times
        self.nbytes += nbytes * times
        self.flops += details.get("mma_flops", 0) * times
        self.bounds[bound] = self.bounds.get(bound, 0) + seconds * times
        self.details = details
        self.attention = self.attention or bool(launch and launch.op.startswith("attention_"))

    @property
    def bound(self):
        return max(self.bounds, key=self.bounds.get)


NAMES = {"transfer": "transfers of the batch and of the loss", "fill": "zeros"}


def describe(launch):
    if launch.kind == "copy":
        return NAMES["transfer"]
    if launch.kind == "fill":
        return NAMES["fill"]
    if launch.kind == "kernel":
        name = launch.name
        for place, text in (("(norm_place)0", "residual"), ("(norm_place)1", "table"), ("(norm_place)2", "embedding")):
            name = name.replace(place, text)
        return name
    if launch.op == "attention_bwd":
        return "product along^T rows (dpos)"
    what = {"linear_fwd": "forward", "linear_gelu_fwd": "forward", "linear_bwd_input": "input gradient",
            "linear_gelu_bwd_input": "input gradient", "linear_bwd_weight": "weight gradient"}
    N, M, K = launch.numbers[:3]
    return "product %s [%d, %d, %d]" % (what.get(launch.op, launch.op), M, N, K)
