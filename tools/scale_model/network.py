"""Seconds of an all-reduce. Published numbers (P), assumptions (A), measurements of ours (M); none was measured on a GPU.

NCCL chooses among algorithms and protocols by a model of its own: a latency and a bandwidth for each. That model is
repeated here with its constants (P: NVIDIA/nccl, src/graph/tuning.cc; latencies and caps of a version that knows
Blackwell, RING_PLATEAU and TREE_SHARE of one of 2020), ring and tree only. NVLink SHARP (NVLS) is left out: within a
node it would save about a third of the time of a layer's range."""

import math
from dataclasses import dataclass

GPUS_A_NODE = 8

# Microseconds, (LL, LL128, Simple). P: NCCL's tuning table.
BASE = {"ring": (6.6, 14.0, 8.4), "tree": (6.8, 14.0, 8.4)}
NVLINK_HOP = {"ring": (0.6, 1.9, 3.4), "tree": (0.6, 1.25, 4.0)}
NETWORK_HOP = {"ring": (2.7, 4.0, 14.0), "tree": (5.0, 8.5, 14.0)}
NETWORK_POST = (1.0, 1.0, 3.0)  # P: what a ring's step costs at least between nodes
RING_PLATEAU = 1.9  # P: factor on the latency of a ring of several nodes, Simple, longer messages
PLATEAU_BYTES_A_RANK = 65536 / 16
# P: what a tree reaches of its bandwidth, by log2(bytes / 64), for the three protocols.
TREE_SHARE = ((1.0, 1.0, 1.0, 1.0, .9, .8, .7, .7, .7, .7, .6, .5, .4, .4, .5, .6, .7, .8, .9, 1.0, 1.0, 1.0),
              (1.0, 1.0, 1.0, 1.0, 1.0, .9, .8, .8, .8, .7, .6, .6, .6, .5, .6, .6, .7, .7, .8, .9, .9, 1.0),
              (.9, .9, .9, .9, .9, .9, .9, .8, .7, .6, .6, .5, .5, .5, .5, .5, .5, .6, .6, .7, .8, .9))
LL_MOST = {1: 141e9, 2: 39e9}  # P: bytes/s of LL on Hopper within a node, between two Intel nodes
LL_MOST_MANY = 20.4e9  # P: between more


@dataclass(frozen=True)
class Network:
    name: str
    node: float  # bytes/s that leave a node in one direction, as NCCL reaches them
    hop: float  # seconds that a hop between nodes takes beyond NCCL's table, which is InfiniBand's
    control: float  # seconds that a message of a short collective takes between nodes, A
    note: str


NVLINK = 370e9  # P: what NCCL reaches of NVLink 4's 450 GB/s a direction (a maintainer in NVIDIA/nccl-tests issue 212)
NETWORKS = [
    Network("NDR", 8 * 47e9, 0.0, 2.5e-6, "InfiniBand NDR, 400 Gb/s a GPU: 46 to 48 of 50 GB/s a card (P: a maintainer in "
            "NVIDIA/nccl-tests issue 290), full bisection (A)"),
    Network("Ethernet", 0.9 * 12.5e9, 25e-6, 20e-6, "one 100 Gb/s Ethernet card a node of 8 GPUs: 0.9 of 12.5 GB/s, 25 us more a hop "
            "through TCP (A)"),
]
CONTROL_IN_NODE = 1e-6  # A: a message of a short collective within a node


def nodes_of(gpus):
    return max(1, -(-gpus // GPUS_A_NODE))


def candidates(nbytes, gpus, network):
    """(seconds, algorithm, protocol) of each choice that NCCL has."""
    nodes = nodes_of(gpus)
    local = gpus / nodes
    bus = NVLINK if nodes == 1 else min(NVLINK, network.node)
    ll_most = LL_MOST.get(nodes, LL_MOST_MANY)
    steps, between = 2 * (gpus - 1), 2 * (nodes - 1)
    for protocol, name in enumerate(("LL", "LL128", "Simple")):
        ring = (min(ll_most, bus / 2), 0.92 * bus, bus)[protocol] * gpus / steps
        hop = NETWORK_HOP["ring"][protocol] + network.hop * 1e6
        within = max(NVLINK_HOP["ring"][protocol], NETWORK_POST[protocol] if nodes > 1 else 0)
        latency = BASE["ring"][protocol] + (steps - between) * within + between * hop
        if nodes > 1 and name == "Simple" and nbytes >= gpus * PLATEAU_BYTES_A_RANK:
            latency *= RING_PLATEAU
        yield latency * 1e-6 + nbytes / ring, "ring", name
        tree = 0.92 * bus
        tree = (min(tree / 3.8, ll_most), tree * (7 / 9 if nodes == 1 else 120 / 128), tree)[protocol] / 2
        size = max(0, int(math.log2(max(nbytes, 64) / 64)))
        share = TREE_SHARE[protocol][size] if size < 22 else 1.0
        hop = NETWORK_HOP["tree"][protocol] + network.hop * 1e6
        latency = BASE["tree"][protocol] + 2 * ((local - 1) * NVLINK_HOP["tree"][protocol] + math.log2(nodes) * hop)
        yield latency * 1e-6 + nbytes / (tree * share), "tree", name


def all_reduce(nbytes, gpus, network):
    return min(candidates(nbytes, gpus, network))[0] if gpus > 1 else 0.0


def control(gpus, network):
    """A short collective of the host (src/comm/short.c): ceil(log2 ranks) rounds, in each of which somebody's message
    leaves its node where there are several."""
    return math.ceil(math.log2(gpus)) * (CONTROL_IN_NODE if nodes_of(gpus) == 1 else network.control)
