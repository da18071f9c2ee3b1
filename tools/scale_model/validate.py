"""The model's CPU side against real runs of fb3-dist on 1, 2 and 4 ranks, on this machine or on virtual nodes.

Measured, each part alone:
  compute   the phases of a step of as many lone ranks beside each other: they share cores and memory as the ranks of a
            run do, with each other and with whatever else runs here
  link      tests/comm_link: seconds of a hop, bytes a second from one rank to another, seconds of a short collective
  work      seconds of processor time that a byte of a sum costs a rank: the all-reduce of 2 ranks over a link without a
            limit, where the processor is the limit
From these are predicted, and held against the program: the all-reduce alone, of all ranges one after another, and the
step of 2 and 4 ranks (`fb3-dist train --profile`, which takes src/train/step.c as it is). No number of the prediction
comes from what it is held against, but for `work`, whose all-reduce is marked.

The step is the timeline of step.py: ranges are posted when the backward pass has made them, and are summed one after
another while it goes on, at
    rate = min(link, 1 / (work share))      share = max(1, ranks / cores)
bytes a second; 2 (p - 1) / p bytes are sent for each byte of a range, then 2 log2(p) hops more. What the sums take of
the processor meanwhile is not the compute's: it goes on at 1 - rate work share of its speed.

The sample's essays are repeated until all are cut to one length, and their number is a multiple of every global batch,
so that every step of every rank has the same work. Rounds go in turns, because other jobs may run here; the least step
of all rounds counts, and the median is beside it. The first step of a run, which touches memory for the first time,
does not count."""

import csv
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass

from . import shapes
from .launch import finish, start
from .step import Timeline

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLE = os.path.join(SOURCE, "tests", "sample")
ACTIVE = 800  # rows of the sample's vocabulary
COPIES, REPEAT = 8, 8  # 2,400 essays
RANKS = (2, 4)
PRESETS = ("tiny", "deberta-v3-xsmall")
LINK_REPEATS = 4
CONTROLS = 2  # short collectives of a step: the stop flag, the sums of the loss


@dataclass(frozen=True)
class Case:
    preset: str
    batch: int
    length: int
    steps: int

    @property
    def name(self):
        return "%s, %d x %d" % (self.preset, self.batch, self.length)

    @property
    def ranges(self):
        return shapes.ranges(self.preset, ACTIVE)


CASES = (Case("tiny", 4, 64, 200), Case("deberta-v3-xsmall", 2, 64, 5), Case("deberta-v3-xsmall", 8, 64, 4))


@dataclass
class Phases:
    """Seconds of a lone step."""
    forward: float  # and the head's backward pass
    layers: list
    tail: float
    step: float  # norm, clip, AdamW

    @property
    def total(self):
        return self.forward + sum(self.layers) + self.tail + self.step


@dataclass
class Link:
    hop: float
    rate: float
    control: float
    all_reduce: list  # seconds


def say(text):
    print(text, file=sys.stderr, flush=True)


def write_essays(path, copies=COPIES):
    """The sample, each text long enough to be cut, each essay `copies` times."""
    with open(os.path.join(SAMPLE, "train.csv"), newline="") as file:
        rows = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(rows[0])
        for copy in range(copies):
            for r in rows[1:]:
                out.writerow(["%s-%d" % (r[0], copy), " ".join([r[1]] * REPEAT)] + r[2:])


def train_arguments(case, folder):
    return ["train", "--model_preset", case.preset, "--init", "random", "--tokenizer", os.path.join(SAMPLE, "spm.model"),
            "--train_file", os.path.join(folder, "train.csv"), "--output_dir", os.path.join(folder, "run"), "--folds", "1",
            "--max_length", str(case.length), "--per_device_train_batch_size", str(case.batch), "--max_steps", str(case.steps),
            "--save_strategy", "no", "--eval_strategy", "no", "--bind", "keep", "--bf16", "false", "--use_cpu", "--quiet",
            "--profile", os.path.join(folder, "trace.json")]


# --- reading traces ---------------------------------------------------------------------------------------------------


def read_trace(folder):
    with open(os.path.join(folder, "trace.json")) as file:
        trace = json.load(file)
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    return sorted((e for e in events if e.get("ph") == "X"), key=lambda e: e["ts"])


def steps_of(events):
    """All but the first."""
    return [e for e in events if e["cat"] == "train" and e["name"] == "step"][1:]


def phases_of(events, step):
    """Cut where the operations go from one layer to another."""
    end, turns, clip = step["ts"] + step["dur"], [], None
    for e in events:
        if e["cat"] != "operation" or not step["ts"] <= e["ts"] < end:
            continue
        layer = e["args"]["layer"]
        if not turns or turns[-1][0] != layer:
            turns.append((layer, e["ts"]))
        if e["name"] == "sum_squares" and clip is None:
            clip = e["ts"]
    layers = max(layer for layer, _ in turns) + 1
    order = [-1] + list(range(layers)) + [-1] + list(range(layers - 1, -1, -1)) + [-1]
    if [layer for layer, _ in turns] != order or clip is None:
        raise SystemExit("a step is not what this model takes it for: layers %s" % [layer for layer, _ in turns])
    back = [at for _, at in turns[layers + 2:]]  # where the backward pass of each layer begins, and the tail
    return Phases((back[0] - step["ts"]) * 1e-6, [(b - a) * 1e-6 for a, b in zip(back, back[1:])], (clip - back[-1]) * 1e-6,
                  (end - clip) * 1e-6)


def lone(program, case, beside):
    """The phases of the steps of so many lone ranks beside each other."""
    folders = [tempfile.mkdtemp(prefix="scale-model-") for _ in range(beside)]
    try:
        for folder in folders:
            write_essays(os.path.join(folder, "train.csv"))
        for process in [start([program] + train_arguments(case, folder), folder) for folder in folders]:
            finish(process)
        return [phases_of(events, s) for events in map(read_trace, folders) for s in steps_of(events)]
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def train(place, program, case, ranks):
    """Seconds of the steps of a run."""
    with tempfile.TemporaryDirectory(prefix="scale-model-") as folder:
        write_essays(os.path.join(folder, "train.csv"))
        place.run(ranks, [program] + train_arguments(case, folder), folder)
        return [s["dur"] * 1e-6 for s in steps_of(read_trace(folder))]


# --- the prediction ---------------------------------------------------------------------------------------------------


@dataclass
class Sums:
    """How fast ranks sum, and what it takes of their processors."""
    ranks: int
    link: Link
    work: float  # seconds of a processor for a byte
    cores: int

    @property
    def share(self):
        return max(1.0, self.ranks / self.cores)

    @property
    def rate(self):
        return min(self.link.rate, 1 / (self.work * self.share))

    @property
    def slows(self):
        left = 1 - self.rate * self.work * self.share
        return 1 / left if left > 1e-6 else math.inf

    def seconds(self, nbytes):
        return 2 * (self.ranks - 1) / self.ranks * nbytes / self.rate + 2 * math.log2(self.ranks) * self.link.hop


def predicted(phases, ranges, sums):
    """(seconds of a step, seconds of it that sums add to the compute)."""
    line = Timeline(sums.slows)
    line.compute(phases.forward)
    for nbytes, part in zip(ranges, phases.layers + [phases.tail]):
        line.post(sums.seconds(nbytes))
        line.compute(part)
    line.post(sums.seconds(ranges[-1]))
    end = max(line.now, line.busy_until) + phases.step + CONTROLS * sums.link.control
    return end, end - phases.total


# --- measuring --------------------------------------------------------------------------------------------------------


class Measured:
    def __init__(self):
        self.links = {}  # (preset, link, ranks) -> [Link]
        self.lone, self.steps = {}, {}  # (case, link, ranks) -> [Phases], seconds: neighbours in time, as the load changes

    def link(self, preset, link, ranks):
        """The best of all rounds."""
        found = self.links[preset, link, ranks]
        return Link(min(l.hop for l in found), max(l.rate for l in found), min(l.control for l in found),
                    [s for l in found for s in l.all_reduce])


def measure_link(place, helper, preset, ranks):
    out = place.run(ranks, [helper, str(LINK_REPEATS)] + [str(n) for n in shapes.ranges(preset, ACTIVE)], SOURCE)
    found = json.loads(out[out.index("{"):])
    return Link(found["hop"], found["rate"], found["control"], found["all_reduce"])


def measure(place, program, helper, rounds, minutes):
    m, end, done = Measured(), time.monotonic() + 60 * minutes, 0
    while done < rounds and (done == 0 or time.monotonic() < end):
        for link in place.links:
            place.limit(link)
            for ranks in RANKS:
                for preset in PRESETS:
                    found = measure_link(place, helper, preset, ranks)
                    m.links.setdefault((preset, link, ranks), []).append(found)
                    say("  %s, %d ranks: %.3f GB/s, hop %.0f us, control %.0f us, all-reduce %.2f ms" % (
                        link, ranks, found.rate / 1e9, 1e6 * found.hop, 1e6 * found.control, 1e3 * min(found.all_reduce)))
                for case in CASES:
                    key = case, link, ranks
                    m.lone.setdefault(key, []).extend(lone(program, case, ranks))
                    m.steps.setdefault(key, []).extend(train(place, program, case, ranks))
                    say("    %s: least %.2f ms, as many lone ranks %.2f ms" % (case.name, 1e3 * min(m.steps[key]),
                                                                              1e3 * min(p.total for p in m.lone[key])))
        done += 1
    return m, done


# --- report -----------------------------------------------------------------------------------------------------------


def table(head, rows):
    return ["| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head)] + rows]


def error(prediction, real):
    return "%.1f (%+.0f %%)" % (1e3 * prediction, 100 * (prediction / real - 1))


def report(place, m, rounds, cores, load):
    free = place.links[0]
    # of as many bytes as the model has, because large sums leave the caches; 2 (p - 1) / p is 1
    work = {p: min(m.link(p, free, 2).all_reduce) / sum(shapes.ranges(p, ACTIVE)) for p in PRESETS}
    links, steps, errors = [], [], []
    for preset, link, ranks in ((p, l, r) for p in PRESETS for l in place.links for r in RANKS):
        ranges = shapes.ranges(preset, ACTIVE)
        found = m.link(preset, link, ranks)
        sums = Sums(ranks, found, work[preset], cores)
        real = min(found.all_reduce)
        taken = link == free and ranks == 2
        links.append(["%.1f" % (sum(ranges) / 1e6), link, str(ranks), "%.0f" % (1e6 * found.hop), "%.3f" % (found.rate / 1e9),
                      "%.0f" % (1e6 * found.control),
                      "taken for work" if taken else error(sum(map(sums.seconds, ranges)), real), "%.1f" % (1e3 * real),
                      "%.1f" % (1e3 * statistics.median(found.all_reduce))])
    for case in CASES:
        for link in place.links:
            for ranks in RANKS:
                found = sorted(m.lone[case, link, ranks], key=lambda p: p.total)
                least, middle = found[0], found[len(found) // 2]
                sums = Sums(ranks, m.link(case.preset, link, ranks), work[case.preset], cores)
                real = m.steps[case, link, ranks]
                seconds, added = predicted(least, case.ranges, sums)
                errors.append((case, link, ranks, seconds / min(real) - 1))
                steps.append([case.name, link, str(ranks), "%.1f" % (sum(case.ranges) / 1e6), "%.1f" % (1e3 * least.total),
                              "%.0f %%" % (100 * added / seconds), error(seconds, min(real)), "%.1f" % (1e3 * min(real)),
                              error(predicted(middle, case.ranges, sums)[0], statistics.median(real)),
                              "%.1f" % (1e3 * statistics.median(real))])
    summary = []
    for preset in PRESETS:
        mine = [e for e in errors if e[0].preset == preset]
        worst = max(mine, key=lambda e: abs(e[3]))
        summary.append("%s %.0f %% in the mean, at most %+.0f %% (%s, %s, %d ranks)" % (
            preset, 100 * statistics.mean(abs(e) for _, _, _, e in mine), 100 * worst[3], worst[0].name, worst[1], worst[2]))
    lines = ["### On %s" % place.name, "",
             "%d round(s) in turns on %d cores, 1 thread a rank, fp32; load average %.1f before, %.1f after. A sum costs a rank's "
             "processor %s ns a byte. Error of the step, of the least times: %s." % (
                 rounds, cores, load[0], load[1], " and ".join("%.2f (%s)" % (1e9 * work[p], p) for p in PRESETS), "; ".join(summary)), "",
             "All-reduce alone:", ""]
    lines += table(["MB", "link", "ranks", "hop us", "GB/s", "control us", "predicted ms (error)", "measured ms", "measured median ms"],
                   links)
    lines += ["", "Steps:", ""]
    lines += table(["model, essays a rank x tokens", "link", "ranks", "MB summed", "as many lone steps ms", "of the prediction, by sums",
                    "predicted ms (error)", "measured ms", "from medians ms (error)", "measured median ms"], steps)
    return "\n".join(lines)


def validate(place, build, rounds, minutes):
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, place:  # the build may be made anew meanwhile
        os.chmod(folder, 0o755)
        program, helper = (shutil.copy2(os.path.join(build, *path), folder) for path in (("fb3-dist",), ("tests", "comm_link")))
        before = os.getloadavg()[0]
        m, done = measure(place, program, helper, rounds, minutes)
        return report(place, m, done, cores, (before, os.getloadavg()[0]))
