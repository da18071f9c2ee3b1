"""One step of N GPUs, from what one GPU takes and what an all-reduce takes.

The timeline of src/train/step.c on devices: the compute stream runs forward and backward; each range of the gradient is
posted when it is final, and the ranges are summed one after the other on a stream of their own, while the compute
stream goes on. With gradient accumulation only the last micro-batch posts. After the last range come the norm, clip and
AdamW, on all parameters of every rank, then the host's sum of the losses and, before the next step, the stop flag."""

import json
import math
import os
from dataclasses import dataclass

from . import lengths, network, shapes

MICRO_BATCH_MOST = 32  # essays in one forward pass
OVERLAP_SLOWS = 1 / (1 - 16 / 132)  # A: the sums hold 16 of 132 multiprocessors (one a channel) while they run
HOST_TURN = 30e-6  # A: the host sees the end of a step and queues the next
JITTER = 0.01  # A: one rank's steps vary by 1 % (standard deviation); the slowest of N is waited for

TIMES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gpu_times.json")


def read_times(path=TIMES):
    """GPU -> preset -> batch -> phase -> seconds (count.py)."""
    with open(path) as file:
        return {gpu: {preset: {int(b): phases for b, phases in by_batch.items()} for preset, by_batch in by_preset.items()}
                for gpu, by_preset in json.load(file).items()}


def phases_at(by_batch, essays):
    """Phases of a micro-batch of any size: straight lines between and beyond the sizes that were counted."""
    sizes = sorted(by_batch)
    above = [s for s in sizes[1:] if s >= essays]
    high = above[0] if above else sizes[-1]
    low = sizes[sizes.index(high) - 1]
    part = (essays - low) / (high - low)
    return {k: v + part * (by_batch[high][k] - v) for k, v in by_batch[low].items()}


@dataclass
class Step:
    seconds: float
    uneven: float = 0.0  # the wait for the rank with the longest essays, and for the slowest
    slowed: float = 0.0  # by sums that run beside
    exposed: float = 0.0  # sums after the backward pass
    control: float = 0.0
    fixed: float = 0.0  # norm, clip, AdamW: whatever the batch


class Timeline:
    def __init__(self, slows):
        self.now, self.busy_until, self.slows, self.lost = 0.0, 0.0, slows, 0.0

    def compute(self, seconds):
        beside = max(0.0, self.busy_until - self.now)  # the sums' time from now on
        done_beside = beside / self.slows
        if seconds <= done_beside:
            taken = seconds * self.slows
        else:
            taken = beside + seconds - done_beside
        self.lost += taken - seconds
        self.now += taken

    def post(self, seconds):
        self.busy_until = max(self.now, self.busy_until) + seconds


class Cluster:
    def __init__(self, preset, by_batch, net, active=shapes.ACTIVE_ROWS):
        self.preset, self.by_batch, self.net = preset, by_batch, net
        self.shape, self.ranges = shapes.SHAPES[preset], shapes.ranges(preset, active)

    def step(self, gpus, essays, slows=OVERLAP_SLOWS, net=None):
        """`essays`: of the whole global batch."""
        net, layers = net or self.net, self.shape.layers
        fullest = -(-essays // gpus)
        number = math.ceil(fullest / MICRO_BATCH_MOST)
        each = fullest / number
        whole = lambda p: p["forward"] + p["head"] + layers * p["layer"] + p["tail"]
        even = phases_at(self.by_batch, each)
        p = phases_at(self.by_batch, each * lengths.imbalance(essays, gpus, self.shape.hidden))
        if gpus > 1:
            slowest = 1 + JITTER * math.sqrt(2 * math.log(gpus))
            p = {k: v * (1 if k == "step" else slowest) for k, v in p.items()}
        sums = [network.all_reduce(n, gpus, net) for n in self.ranges]
        line = Timeline(slows)
        line.now = (number - 1) * whole(p)
        line.compute(p["forward"] + p["head"])
        for i, summed in enumerate(sums[:-1]):
            line.post(summed)
            line.compute(p["layer"] if i < layers else p["tail"])
        line.post(sums[-1])
        exposed = max(0.0, line.busy_until - line.now)
        control = HOST_TURN + ((1 + number) * network.control(gpus, net) if gpus > 1 else 0.0)
        return Step(line.now + exposed + p["step"] + control, number * (whole(p) - whole(even)), line.lost, exposed, control,
                    p["step"])
