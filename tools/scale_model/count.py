"""Phase times of a step on one GPU, from tools/gpu_model: a model of the kernels, not a measurement.

The program's launches, counted on the emulated device, are put into the phases that matter to the all-reduce:
  forward  zeros, transfers, the forward pass, the loss
  head     the backward pass before the layers; then the first range (the head) is posted
  layer    the backward pass of one layer; then its range is posted
  tail     the backward pass after the layers (positions, embeddings); then the last range is posted
  step     norm of the gradient, clip, AdamW
Needs what tools/gpu-model needs. Its result is committed (gpu_times.json), so that tools/scale-model needs none of it."""

import json
import sys

from gpu_model import formulas, hardware
from gpu_model.model import ATTENTION, BY_ELEMENT, Counts, Model, read_resources
from gpu_model.step import Emulator, sass_ratios

ARCH = "90"
PRESETS = ("deberta-v3-base", "deberta-v3-large")
BATCHES = (1, 2, 4, 8, 16, 32)
SOURCES = {"attention_fwd": ["attention_fwd_kernel<64, false>"],
           "attention_bwd": ["attention_bwd_kernel<64, 1, false>", "attention_bwd_kernel<64, -1, false>"]}


def say(text):
    print(text, file=sys.stderr, flush=True)


def one_head(emulator, batch, even):
    """What one head costs, on the PTX; both presets have heads of 64. Lengths that occur twice are run once."""
    times = 2 if even else 1
    head = emulator.run(ptx=ARCH, preset=PRESETS[0], sequences=batch // times, layers=1, heads=1, intermediate=256, vocab=500)
    sizes = formulas.complete(head)
    attention = {l.name: {k: times * v for k, v in l.counters.items()} for l in head.launches if l.base in ATTENTION}
    by_element = {l.name: l.counters["warp_instructions"] / formulas.launch_bytes(l, sizes)
                  for l in head.launches if l.base in BY_ELEMENT}
    return attention, by_element


def twice(emulator, batch, lengths):
    if batch < 2:
        return False
    half = emulator.run(kernels="count", preset=PRESETS[0], sequences=batch // 2, layers=1, vocab=500)
    return sorted(2 * half.sizes["lengths"]) == sorted(lengths)


def phases(model):
    """Seconds of each phase."""
    sums = {"forward": 0.0, "head": 0.0, "layers": 0.0, "tail": 0.0, "step": 0.0}
    seen_layer, layers = False, model.counts.sizes["L"]
    for launch in model.counts.launches:
        seconds = hardware.launch_time(model.launch(launch)[0])
        if launch.phase == "backward":
            seen_layer = seen_layer or launch.layer >= 0
            phase = "layers" if launch.layer >= 0 else "tail" if seen_layer else "head"
        else:
            phase = launch.phase
        sums[phase] += seconds
    sums["layer"] = sums.pop("layers") / layers
    return sums


def count(build):
    emulator, ratios, resources = Emulator(build), {ARCH: {}}, read_resources()
    for source, kernels in SOURCES.items():
        ratios[ARCH].update(sass_ratios(emulator.build, ARCH, source, kernels))
    times = {gpu.name: {preset: {} for preset in PRESETS} for gpu in hardware.GPUS if gpu.arch == ARCH}
    for batch in BATCHES:
        head = None
        for preset in PRESETS:
            say("%s, batch %d" % (preset, batch))
            step = emulator.run(kernels="count", preset=preset, sequences=batch)
            counts = Counts(formulas.complete(step), step.launches, ratios=ratios)
            if head is None:
                head = one_head(emulator, batch, twice(emulator, batch, step.sizes["lengths"]))
            counts.attention[ARCH], counts.instructions[ARCH] = head
            for gpu in hardware.GPUS:
                if gpu.name in times:
                    found = phases(Model(gpu, counts, resources))
                    times[gpu.name][preset][batch] = {k: float("%.4g" % v) for k, v in found.items()}
    return times


def write(build, path):
    with open(path, "w") as file:
        json.dump(count(build), file, indent=1)
        file.write("\n")
