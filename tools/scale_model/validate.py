"""The model's CPU side against real runs of fb3-dist on 1, 2 and 4 ranks of this machine.

Measured alone: the step of one rank; the same with as many lone ranks beside each other as there are cores, which share
the memory and whatever else runs here; the all-reduce (`fb3-dist bench` on 2 ranks). From these the steps of 2 and 4
ranks are predicted and held against `fb3-dist train --profile`, which takes src/train/step.c as it is. The
sample's essays are repeated until all are cut to one length, and their number is a multiple of every global batch, so
that every step of every rank has the same work. The least time over all steps of all rounds
counts, and rounds go in turns, because other jobs run here; the first step of a run, which touches memory for the first
time, does not.

On the CPU the sums are no work of others: poll() moves them on with the rank's own core, so they add to the step whether
they come before the end of the backward pass or after it, and ranks that share a core share its time:
    step(p) = (compute + sums(p)) max(1, p / cores) + latency(p)
    sums(p) = 2 (p - 1) / p  bytes / bandwidth      latency(p) = (pieces + 2 control collectives) 2 log2(p) hop
"""

import csv
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from . import shapes

PIECE = 4 << 20  # bytes, src/comm/allreduce_mpi.c
HOP = 5e-6  # M: 4 bytes over two ranks of a node take 4 to 35 us (notes on Slurm)
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLE = os.path.join(SOURCE, "tests", "sample")
ACTIVE = 800  # rows of the sample's vocabulary
COPIES, REPEAT = 8, 8  # 2,400 essays
TIMEOUT = 300


@dataclass(frozen=True)
class Case:
    preset: str
    batch: int
    length: int
    steps: int


CASES = (Case("tiny", 4, 64, 400), Case("deberta-v3-xsmall", 2, 64, 7))
SHOTS = 2  # of the all-reduce, a round


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment():
    return dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def launch(program, ranks, arguments, folder):
    command = ["mpirun", "--oversubscribe", "-np", str(ranks), program] + arguments
    return subprocess.Popen(command, env=environment(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=TIMEOUT)
    if process.returncode != 0:
        raise SystemExit("%s: %s" % (" ".join(process.args), err.strip() or out.strip()))
    return out


def write_essays(path):
    """The sample, each text long enough to be cut, each essay COPIES times."""
    with open(os.path.join(SAMPLE, "train.csv"), newline="") as file:
        rows = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(rows[0])
        for copy in range(COPIES):
            for r in rows[1:]:
                out.writerow(["%s-%d" % (r[0], copy), " ".join([r[1]] * REPEAT)] + r[2:])


def train_arguments(case, folder):
    return ["train", "--model_preset", case.preset, "--init", "random", "--tokenizer", os.path.join(SAMPLE, "spm.model"),
            "--train_file", os.path.join(folder, "train.csv"), "--output_dir", os.path.join(folder, "run"), "--folds", "1",
            "--max_length", str(case.length), "--per_device_train_batch_size", str(case.batch), "--max_steps", str(case.steps),
            "--save_strategy", "no", "--eval_strategy", "no", "--bind", "keep", "--bf16", "false", "--use_cpu", "--quiet",
            "--profile", os.path.join(folder, "trace.json")]


def steps_of(folder):
    """Seconds of each step but the first."""
    with open(os.path.join(folder, "trace.json")) as file:
        trace = json.load(file)
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    return [e["dur"] * 1e-6 for e in events if e.get("cat") == "train" and e.get("name") == "step"][1:]


def train(program, case, ranks, beside=1):
    """The steps of a run, or of several lone runs beside each other."""
    folders = [tempfile.mkdtemp(prefix="scale-model-") for _ in range(beside)]
    try:
        for folder in folders:
            write_essays(os.path.join(folder, "train.csv"))
        for process in [launch(program, ranks, train_arguments(case, folder), folder) for folder in folders]:
            finish(process)
        return [s for folder in folders for s in steps_of(folder)]
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def bandwidth(program):
    """Bytes a second that a rank sends, and receives, in the all-reduce of 2 ranks."""
    with tempfile.TemporaryDirectory() as folder:
        out = finish(launch(program, 2, ["bench", "--model_preset", "deberta-v3-xsmall", "--per_device_train_batch_size", "1",
                                         "--max_length", "32", "--max_steps", "1", "--bind", "keep", "--bf16", "false", "--use_cpu",
                                         "--json"], folder))
    seconds = json.loads(out[out.index("{"):])["all_reduce_seconds"]
    return sum(shapes.ranges("deberta-v3-xsmall", 14000)) / seconds  # 2 (p - 1) / p is 1


def predicted(case, ranks, compute, rate, cores):
    ranges = shapes.ranges(case.preset, ACTIVE)
    sums = 2 * (ranks - 1) / ranks * sum(ranges) / rate
    pieces = sum(-(-n // PIECE) for n in ranges)
    latency = (pieces + 2) * 2 * math.log2(ranks) * HOP
    return (compute + sums) * max(1.0, ranks / cores) + latency


def measure(program, rounds, minutes, cores):
    """case -> what -> seconds of steps; and the rates of the all-reduce."""
    measured, rates, end = {case: {} for case in CASES}, [], time.monotonic() + 60 * minutes
    for i in range(rounds):
        if time.monotonic() > end:
            break
        rates.extend(bandwidth(program) for _ in range(SHOTS))
        say("round %d of %d: all-reduce %.2f GB/s" % (i + 1, rounds, max(rates[-SHOTS:]) / 1e9))
        for case in CASES:
            for what, ranks, beside in (("one", 1, 1), ("beside", 1, cores), ("2", 2, 1), ("4", 4, 1)):
                found = train(program, case, ranks, beside)
                measured[case].setdefault(what, []).extend(found)
                say("  %s %s: least %.2f ms" % (case.preset, what, 1e3 * min(found)))
    return measured, rates


def row(cells):
    return "| " + " | ".join(cells) + " |"


def report(measured, rates, cores, load):
    rate = max(rates)
    error = lambda prediction, real: "%.2f (%+.0f %%)" % (1e3 * prediction, 100 * (prediction / real - 1))
    head = ["model, essays a rank x tokens", "ranks", "MB summed", "lone step ms", "lone ranks side by side ms", "predicted ms (error)",
            "measured ms", "from the lone step ms (error)", "predicted from medians ms (error)", "measured median ms"]
    lines = ["## Against real runs (measured, CPU)", "",
             "`tools/scale-model --validate`: %d round(s) in turns on %d cores, 1 thread a rank, fp32. The load average was %.1f before and "
             "%.1f after: other jobs ran on the machine all the time, so the least step of all rounds is taken, and the medians are beside "
             "it. All-reduce alone, 2 ranks: %.2f GB/s a rank and direction at best, %.2f at worst." % (
                 len(rates) // SHOTS, cores, load[0], load[1], rate / 1e9, min(rates) / 1e9), "",
             row(head), "|" + "---|" * len(head)]
    for case, found in measured.items():
        one, beside, middle = min(found["one"]), min(found["beside"]), statistics.median(found["beside"])
        for ranks in (2, 4):
            real, real_middle = min(found[str(ranks)]), statistics.median(found[str(ranks)])
            lines.append(row([
                "%s, %d x %d" % (case.preset, case.batch, case.length), str(ranks),
                "%.1f" % (sum(shapes.ranges(case.preset, ACTIVE)) / 1e6), "%.2f" % (1e3 * one), "%.2f" % (1e3 * beside),
                error(predicted(case, ranks, beside, rate, cores), real), "%.2f" % (1e3 * real),
                error(predicted(case, ranks, one, rate, cores), real),
                error(predicted(case, ranks, middle, statistics.median(rates), cores), real_middle), "%.2f" % (1e3 * real_middle)]))
    return "\n".join(lines)


def validate(program, rounds, minutes):
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:  # the build may be made anew meanwhile
        copy = os.path.join(folder, "fb3-dist")
        shutil.copy2(program, copy)
        before = os.getloadavg()[0]
        measured, rates = measure(copy, rounds, minutes, cores)
    return report(measured, rates, cores, (before, os.getloadavg()[0]))
