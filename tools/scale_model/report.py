"""The tables of tools/scale-model, as markdown."""

import math

from . import network, shapes
from .lengths import LENGTHS
from .network import NETWORKS
from .step import HOST_TURN, JITTER, MICRO_BATCH_MOST, OVERLAP_SLOWS, Cluster

LABEL = "a model, not a measurement"
PRESETS = ("deberta-v3-base", "deberta-v3-large")
SIZES = [1 << i for i in range(11)]  # 1 to 1,024 GPUs
GLOBAL = (32, 256, 1024)
A_GPU = 8  # essays, weak scaling
KAGGLE, FOLDS, EPOCHS = 3911, 3, 5  # P: essays of the competition; the usual recipe's folds; A: epochs
GLOBAL_MOST = 128  # M by others: deberta-v3-base trains as well at a global batch of 128 as at 8 (notes); above: not known
START = 20.0  # s, A: launch, reading the weights, connecting NCCL, evaluation and checkpoints


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(r) + " |" for r in rows])


def ms(seconds):
    return "%.2f" % (1e3 * seconds) if seconds < 0.1 else "%.0f" % (1e3 * seconds)


def percent(share):
    return "%.0f %%" % (100 * share)


def short(preset):
    return preset.replace("deberta-v3-", "")


class Scaling:
    """Steps of a global batch (strong), or of a number of essays a GPU (weak), at each number of GPUs."""

    def __init__(self, cluster, essays=None, a_gpu=None):
        self.cluster, self.weak = cluster, a_gpu is not None
        self.name = "%d essays a GPU" % a_gpu if self.weak else "global batch %d" % essays
        self.essays = {n: a_gpu * n if self.weak else essays for n in SIZES}
        self.steps = {n: cluster.step(n, self.essays[n]) for n in SIZES}

    def ideal(self, n):
        return self.steps[1].seconds * self.essays[n] / self.essays[1] / n

    def efficiency(self, n):
        return self.ideal(n) / self.steps[n].seconds

    def losses(self, n):
        """Where the time beyond the ideal goes; the first part is what smaller batches a GPU cost."""
        s, c = self.steps[n], self.cluster
        lost = {"clip and AdamW, the same on every GPU": s.fixed * (1 - self.essays[n] / self.essays[1] / n),
                "waiting for the longest essays and the slowest rank": s.uneven, "compute slowed by sums beside it": s.slowed,
                "exposed sums": s.exposed, "control collectives": s.control - HOST_TURN}
        rest = s.seconds - self.ideal(n) - sum(lost.values())
        small = "idle GPUs: fewer essays than GPUs" if n > self.essays[n] else "small batches, which fill a GPU less"
        lost[small] = rest
        return dict(sorted(lost.items(), key=lambda item: -item[1]))

    def stops(self):
        """The first number of GPUs with an efficiency below a half, or None."""
        return next((n for n in SIZES if self.efficiency(n) < 0.5), None)


def ranges_part():
    rows = []
    for preset in PRESETS:
        r = shapes.ranges(preset)
        rows.append([short(preset), str(len(r)), "%.3f" % (r[0] / 1e6), "%d x %.1f" % (len(r) - 2, r[1] / 1e6), "%.1f" % (r[-1] / 1e6),
                     "%.1f" % (sum(r) / 1e6), percent(r[-1] / sum(r))])
    return "\n".join([
        "## What is summed", "",
        "Ranges of the gradient in the order of posting, by formula from the shape. `--check --build DIR`, which is a test, holds the "
        "formula against the published counts, the program's own table of all presets, and the sums of real steps. fp32; %d active rows of the "
        "word table (M)." % shapes.ACTIVE_ROWS, "",
        table(["model", "ranges", "head MB", "layers MB", "last range MB", "all MB", "share of the last range"], rows)])


def one_gpu_part(gpu, times):
    rows = []
    for preset in PRESETS:
        for batch in sorted(times[preset]):
            p, layers = times[preset][batch], shapes.SHAPES[preset].layers
            total = p["forward"] + p["head"] + layers * p["layer"] + p["tail"] + p["step"]
            rows.append([short(preset), str(batch), ms(p["forward"]), ms(p["head"]), "%d x %s" % (layers, ms(p["layer"])),
                         ms(p["tail"]), ms(p["step"]), ms(total), "%.0f" % (batch / total)])
    return "\n".join([
        "## One %s (%s)" % (gpu, LABEL), "",
        "Kernels by `tools/gpu_model`, put into phases (`tools/scale_model/count.py`, `gpu_times.json`); both models counted launch by "
        "launch, large not scaled by flops. Base at 8 and 32 is the step of tools/gpu-model-results.md.", "",
        table(["model", "essays", "forward ms", "head ms", "layers ms", "tail ms", "clip, AdamW ms", "step ms", "essays/s"], rows)])


def sums_part():
    rows = []
    base, large = (shapes.ranges(p) for p in PRESETS)
    for n in SIZES[1:]:
        cells = [str(n)]
        for net in NETWORKS:
            for nbytes in (base[1], base[-1], large[1], large[-1]):
                cells.append(ms(network.all_reduce(nbytes, n, net)))
            cells.append("%.0f" % (1e6 * network.control(n, net)))
        rows.append(cells)
    head = ["GPUs"] + ["%s: %s" % (net.name, what) for net in NETWORKS for what in (
        "base layer ms", "base last ms", "large layer ms", "large last ms", "control us")]
    return "\n".join(["## One all-reduce (%s)" % LABEL, "", "The best of ring and tree with each protocol, by NCCL's own cost model.", "",
                      table(head, rows)])


def scaling_part(title, scalings):
    rows = []
    for s in scalings:
        rows.append([short(s.cluster.preset), s.cluster.net.name, s.name] + [
            "%s (%s)" % (ms(s.steps[n].seconds), percent(s.efficiency(n))) for n in SIZES])
    return "\n".join([title, "", table(["model", "network", "batch"] + ["%d" % n for n in SIZES], rows)])


def breakdown_part(scalings):
    rows = []
    for s in scalings:
        for n in (8, 64, 1024):
            t = s.steps[n]
            rows.append([short(s.cluster.preset), s.cluster.net.name, str(n), ms(t.seconds), ms(t.uneven), ms(t.slowed), ms(t.exposed),
                         ms(t.control), ms(t.fixed), percent(s.efficiency(n))])
    return "\n".join(["What a step consists of beyond one GPU's compute, weak scaling:", "", table(
        ["model", "network", "GPUs", "step ms", "longest essays, slowest rank ms", "slowed by sums ms", "exposed sums ms",
         "control, host ms", "clip, AdamW ms (in any step)", "efficiency"], rows)])


def stops_part(scalings):
    rows = []
    for s in scalings:
        n = s.stops()
        if n is None:
            rows.append([short(s.cluster.preset), s.cluster.net.name, s.name, "not up to 1,024 (%s there)" % percent(s.efficiency(1024)),
                         "", "; ".join("%s %s" % (k, ms(v) + " ms") for k, v in list(s.losses(1024).items())[:2])])
            continue
        before = SIZES[SIZES.index(n) - 1]
        rows.append([short(s.cluster.preset), s.cluster.net.name, s.name, "%d (%s)" % (before, percent(s.efficiency(before))),
                     "%d (%s)" % (n, percent(s.efficiency(n))),
                     "; ".join("%s %s" % (k, ms(v) + " ms") for k, v in list(s.losses(n).items())[:2])])
    return "\n".join(["## Where it stops paying: efficiency below 50 %% (%s)" % LABEL, "", table(
        ["model", "network", "batch", "last above", "first below", "why: where the time beyond the ideal goes, largest two"], rows)])


def folds_part(clusters):
    rows = []
    for c in clusters:
        for essays in (32, 128):
            cells = [short(c.preset), c.net.name, str(essays)]
            for n in (3, 6, 24, 48, 96, 192, 384, 768):
                one = FOLDS * c.step(n, essays).seconds
                side = c.step(n // FOLDS, essays).seconds
                cells.append("%s / %s = %.2f" % (ms(one), ms(side), one / side))
            rows.append(cells)
    return "\n".join([
        "## Fold groups (%s)" % LABEL, "",
        "Milliseconds for one step of each of three folds: all GPUs on one fold after the other / three groups side by side = what "
        "`fold_groups: 3` gains. Groups share nothing, so a fold on a third of the GPUs works at the efficiency of a third; more than 3 "
        "is gained where all of them would be slower than a third of them: idle GPUs, or sums that leave the node.", "",
        table(["model", "network", "global batch"] + ["%d GPUs" % n for n in (3, 6, 24, 48, 96, 192, 384, 768)], rows)])


def epochs_part(clusters):
    rows, essays = [], KAGGLE * (FOLDS - 1) // FOLDS
    for c in clusters:
        for n in (1, 3, 6, 24, 96, 384, 768):
            group = n // FOLDS if n >= FOLDS else 1
            for a_gpu in (1, 8):
                batch = a_gpu * group
                steps = math.ceil(essays / batch)
                train = EPOCHS * steps * c.step(group, min(batch, essays)).seconds * (1 if n >= FOLDS else FOLDS)
                rows.append([short(c.preset), str(n), str(a_gpu), str(batch), str(steps), "%.1f" % train, percent(train / (train + START)),
                             "no" if batch > GLOBAL_MOST else "yes"])
    return "\n".join([
        "## The practical limit: %d essays (%s)" % (KAGGLE, LABEL), "",
        "%d folds (side by side from 3 GPUs), %d essays to train on in each, %d epochs, NDR. Start, evaluation and checkpoints take about "
        "%.0f s more (A), whatever the number of GPUs. A global batch up to %d is known to train as well (M by others, notes); above, "
        "nobody has shown it." % (FOLDS, essays, EPOCHS, START, GLOBAL_MOST), "",
        table(["model", "GPUs", "essays a GPU", "global batch of a fold", "steps an epoch", "training s", "of that and the start",
               "batch known to train"], rows)])


def what_if_part(times):
    rows = []
    for preset in PRESETS:
        for net in NETWORKS:
            c = Cluster(preset, times[preset], net)
            half = network.Network(net.name, net.node / 2, net.hop, net.control, "")
            full = Cluster(preset, times[preset], net, shapes.VOCABULARY)
            essays = A_GPU * 64
            one = c.step(1, A_GPU).seconds
            cells = [short(preset), net.name]
            for step in (c.step(64, essays), c.step(64, essays, slows=1.0), c.step(64, essays, slows=1.5),
                         c.step(64, essays, net=half), full.step(64, essays)):
                cells.append("%s (%s)" % (ms(step.seconds), percent(one / step.seconds)))
            step = c.step(64, essays)
            exact = step.seconds - step.exposed - step.slowed + network.all_reduce(2 * sum(c.ranges), 64, net)
            rows.append(cells + ["%s (%s)" % (ms(exact), percent(one / exact))])
    return "\n".join([
        "## What if (%s)" % LABEL, "", "64 GPUs, %d essays each. The whole word table: summed instead of the active rows, AdamW over it not "
        "counted. reproducible: true: twice the bytes, after the backward pass; its leaves' smaller micro-batches not counted." % A_GPU, "",
        table(["model", "network", "as it is", "sums slow nothing", "sums slow compute 1.5 x", "half the network",
               "the whole word table", "reproducible: true"], rows)])


def assumptions_part(gpu):
    return "\n".join([
        "## How the numbers come about", "",
        "- Timeline of src/train/step.c: each range is posted when the backward pass has made it, ranges are summed one after the other "
        "beside the compute stream, only in the last micro-batch (of at most %d essays). The last range is posted when nothing is left to "
        "hide it; then norm, clip and AdamW over all parameters on every GPU." % MICRO_BATCH_MOST,
        "- One %s: tools/gpu_model, with its published (P) and assumed (A) numbers; between counted batch sizes, straight lines." % gpu,
        "- NCCL: its own cost model's latencies and shares (P: src/graph/tuning.cc); NVLink %.0f GB/s of 450 (P); NVLink SHARP left out." %
        (network.NVLINK / 1e9),
        *["- %s: %s." % (net.name, net.note) for net in NETWORKS],
        "- Nodes of %d GPUs. A short collective takes ceil(log2 ranks) messages of %.0f us within a node, %s between (A); the host takes %.0f us from a step to "
        "the next (A)." % (network.GPUS_A_NODE, 1e6 * network.CONTROL_IN_NODE, ", ".join(
            "%.1f us (%s)" % (1e6 * net.control, net.name) for net in NETWORKS), 1e6 * HOST_TURN),
        "- Sums beside compute slow it by %.2f: 16 of 132 multiprocessors (A)." % OVERLAP_SLOWS,
        "- Ranks wait for the one with the most tokens: the program's dealing repeated on %d lengths of real essays (M). And for the slowest "
        "of N: %.0f %% standard deviation (A) times sqrt(2 ln N)." % (len(LENGTHS), 100 * JITTER),
        "- Not modelled: congestion between jobs, file systems, evaluation, checkpoints, failures, host threads that fall behind the device."])


def summary_part(strong, weak):
    find = lambda group, preset, net, name: next(s for s in group if s.cluster.preset == preset and s.cluster.net.name == net
                                                 and s.name.endswith(name))
    lines = ["## In short (%s)" % LABEL, ""]
    for preset in PRESETS:
        ndr, slow = find(weak, preset, "NDR", "GPU"), find(weak, preset, "Ethernet", "GPU")
        lines.append("- %s, weak scaling, %d essays a GPU: %s at 8, %s at 64, %s at 1,024 GPUs over NDR; %s at 16 and %s at 64 over one "
                     "100 Gb/s card a node." % (short(preset), A_GPU, percent(ndr.efficiency(8)), percent(ndr.efficiency(64)),
                                                percent(ndr.efficiency(1024)), percent(slow.efficiency(16)), percent(slow.efficiency(64))))
        for essays in GLOBAL:
            s = find(strong, preset, "NDR", "batch %d" % essays)
            n = s.stops()
            lines.append("- %s, global batch %d over NDR: below a half at %s." % (
                short(preset), essays, "no size up to 1,024" if n is None else "%d GPUs, %.1f essays each; mostly %s" % (
                    n, essays / n, next(iter(s.losses(n))))))
    return "\n".join(lines)


def markdown(gpu, times):
    clusters = [Cluster(preset, times[preset], net) for preset in PRESETS for net in NETWORKS]
    strong = [Scaling(c, essays=essays) for c in clusters for essays in GLOBAL]
    weak = [Scaling(c, a_gpu=A_GPU) for c in clusters]
    fast = [c for c in clusters if c.net is NETWORKS[0]]
    parts = ["# Scaling over GPUs: %s" % LABEL,
             "Made by `tools/scale-model`; %s, bf16, fused attention, real lengths, fp32 sums. No GPU and no network took part: **every time "
             "and efficiency below is %s**, but for the last two sections, which are of the CPU." % (gpu, LABEL),
             summary_part(strong, weak),
             scaling_part("## Strong scaling: step ms (efficiency), %s" % LABEL, strong),
             scaling_part("## Weak scaling: step ms (efficiency), %s" % LABEL, weak), breakdown_part(weak),
             stops_part(strong + weak), folds_part(clusters), epochs_part(fast), what_if_part(times), ranges_part(),
             one_gpu_part(gpu, times), sums_part(), assumptions_part(gpu)]
    return "\n\n".join(p.strip() for p in parts)
