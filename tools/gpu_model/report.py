"""What gpu-model prints."""

from . import formulas, hardware
from .hardware import BANDWIDTH_SHARE
from .model import ATTENTION

LABEL = "a model, not a measurement"
LAUNCHES_FORWARD, LAUNCHES_BACKWARD, SAVED_RATIO, MFU, CHECKPOINT = 14, 22, 1.5, 0.50, 0.05
MFU_GPU = "H100"


def table(header, rows):
    lines = ["| " + " | ".join(str(c) for c in row) + " |" for row in [header] + rows]
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines)


def ms(seconds):
    return "%.2f" % (seconds * 1e3) if seconds < 9.995e-2 else "%.1f" % (seconds * 1e3)


def us(seconds):
    return "%.1f" % (seconds * 1e6)


def percent(share):
    return "%.1f %%" % (100 * share)


def mfu(model, seconds):
    return model.counts.sizes["flops"] / (seconds * model.gpu.peak)


def first_of(models):
    return next(iter(models.values()))


def layer_launches(model, phase):
    return [l for l in model.counts.launches if l.layer == 1 and l.phase == phase]


# --- memory ----------------------------------------------------------------------------------------------------------

def saved_bytes(plans):
    """Bytes a token and layer that the forward pass leaves for the backward pass: from the program's own memory plan, by the
    difference of two and one layers, without the position table's projection, which does not grow with tokens."""
    one, two = plans["layers"]
    table_bytes = one["P"] * 2 * one["C"] * 2
    return (two["memory"] - one["memory"] - table_bytes) / one["T"], table_bytes


LEAST = [("q, k, v", lambda s: 6 * s["C"]), ("the attention's output (bf16)", lambda s: 2 * s["C"]),
         ("its log-sum-exp", lambda s: 4 * s["H"]), ("the first LayerNorm's output, from which its input follows", lambda s: 2 * s["C"]),
         ("the feed-forward's inner row before GELU", lambda s: 2 * s["F"]),
         ("the second LayerNorm's output: the layer's", lambda s: 2 * s["C"]), ("two reciprocal deviations", lambda s: 8)]


def memory_part(plans):
    saved, table_bytes = saved_bytes(plans)
    sizes = plans["layers"][0]
    least = sum(f(sizes) for _, f in LEAST)
    rows = [[p["B"], p["T"], "%.1f" % (p["scratch"] / 2 ** 20), "%.1f" % (p["scratch"] / p["T"]),
             "%.1f" % ((p["H"] * p["T"] * 4 + p["T"] * 2 * p["C"]) / 2 ** 20)] for p in plans["tokens"]]
    linear = max(p["scratch"] / p["T"] for p in plans["tokens"]) / min(p["scratch"] / p["T"] for p in plans["tokens"])
    text = ["## Memory", "",
            "Attention's memory, from the program's own plan (`scratch_bytes`; one for all layers): dc2p or dp2c [H, T, R] in "
            "bf16 and delta [H, T]. Kept for each layer: output and log-sum-exp.", "",
            table(["batch", "T", "scratch MiB", "bytes a token", "kept a layer, MiB"], rows), "",
            "Linear in T: the bytes a token differ by a factor of %.3f from the smallest batch to the largest." % linear, "",
            "Saved activations: %.0f bytes a token and layer (memory plan of two layers less one; besides, %d bytes a layer "
            "for the position table's projections). The least, %d bytes: %s. **%.2f x the least.** What is kept beyond it: the "
            "LayerNorms' inputs beside their outputs, and their means." %
            (saved, table_bytes, least, "; ".join("%s %d" % (n, f(sizes)) for n, f in LEAST), saved / least)]
    return "\n".join(text), saved / least, linear


# --- checkpoints -----------------------------------------------------------------------------------------------------

def checkpoint(model, seconds):
    """The step in which a checkpoint is taken: three arenas are copied within the device, beside the forward and backward
    passes, by what these leave of the bandwidth (A); AdamW waits for the rest. Then they are sent by PCIe, which takes its
    share of the bandwidth from the steps meanwhile. -> seconds of the copy, of it those that AdamW waits, share of that step,
    of the steps during the sending."""
    arenas = 3 * 4 * model.counts.sizes["arena"]
    copy = 3 * hardware.LAUNCH_GAP + 2 * arenas / (BANDWIDTH_SHARE * model.gpu.bandwidth)
    beside = 0.0
    for launch in model.counts.launches:
        if launch.phase != "step":
            memory = formulas.launch_bytes(launch, model.counts.sizes) / (BANDWIDTH_SHARE * model.gpu.bandwidth)
            beside += max(0.0, model.launch(launch)[0] - memory)
    waits = max(0.0, copy - beside)
    slower = model.gpu.pcie / model.gpu.bandwidth
    return copy, waits, (waits + min(seconds, arenas / model.gpu.pcie) * slower) / seconds, slower


# --- what if ---------------------------------------------------------------------------------------------------------

def attention_floor(model):
    """Seconds of the step were the attention kernels bound by mma.sync alone; and without attention at all."""
    at_rate, gone = 0.0, 0.0
    for launch in model.counts.launches:
        if not launch.op.startswith("attention_"):
            continue
        seconds, _, details = model.launch(launch)
        gone += hardware.launch_time(seconds)
        if launch.base in ATTENTION:
            at_rate += hardware.launch_time(seconds) - hardware.launch_time(
                max(details["tensor_s"], details["memory_s"]) * details["stretch"])
    return at_rate, gone


def linear_seconds(model):
    return sum(hardware.launch_time(model.launch(l)[0]) for l in model.counts.launches
               if l.kind == "product" and not l.op.startswith("attention_"))


def attention_limit(model, limit):
    return sum(model.kernel(l)[2][limit] for l in model.counts.launches if l.base in ATTENTION)


def fewer_instructions(model, share):
    """Seconds of the step if the attention kernels issued that share of their instructions, and nothing else changed."""
    ratios = model.counts.ratios[model.gpu.arch]
    model.counts.ratios[model.gpu.arch] = {name: ratio * share for name, ratio in ratios.items()}
    seconds = model.step()[1]
    model.counts.ratios[model.gpu.arch] = ratios
    return seconds


def sensitivity(model):
    usual, found = hardware.READY, []
    for ready in (0.2, usual, 0.4):
        hardware.READY = ready
        found.append((ready, model.step()[1]))
    hardware.READY = usual
    return found


# --- parts -----------------------------------------------------------------------------------------------------------

def summary_part(models):
    rows = []
    for name, by_batch in models.items():
        for batch, model in by_batch.items():
            _, seconds = model.step()
            _, eager = model.eager()
            tokens = model.counts.sizes["T"]
            rows.append([name, batch, ms(seconds), percent(mfu(model, seconds)), "%.0f" % (tokens / seconds / 1e3),
                         ms(eager), percent(mfu(model, eager)), "%.2f" % (eager / seconds)])
    return "\n".join(["## The step (%s)" % LABEL, "",
                      table(["GPU", "batch", "step ms", "MFU", "thousand tokens/s", "eager HF ms", "its MFU", "ratio"], rows), "",
                      "MFU: `fb3_step_flops` (6 flops a token and encoder weight, three forward passes of attention with the "
                      "position terms over the whole table, real tokens only) over the published dense bf16 peak. The same "
                      "count serves the eager graph, so its padding counts as waste."])


def counts_part(models):
    by_batch, rows = first_of(models), []
    for batch, model in by_batch.items():
        s, totals = model.counts.sizes, model.step()[0]
        kernels = sum(t.launches for t in totals.values())
        rows.append([batch, s["T"], " ".join(str(n) for n in sorted(set(s["lengths"]))), s["R"], len(layer_launches(model, "forward")),
                     len(layer_launches(model, "backward")), "%d" % kernels, "%.1f" % (sum(t.nbytes for t in totals.values()) / 1e9),
                     "%.2f" % (s["flops"] / 1e12), "%.2f" % (sum(t.flops for t in totals.values()) / 1e12)])
    return "\n".join(["## What one step does (counted)", "",
                      table(["batch", "tokens", "lengths", "R", "launches a layer forward", "backward", "launches a step", "GB",
                             "TFLOP, usual count", "TFLOP, executed on tensor cores"], rows)])


def targets_part(models, saved, linear):
    by_batch = first_of(models)
    any_model = next(iter(by_batch.values()))
    forward, backward = len(layer_launches(any_model, "forward")), len(layer_launches(any_model, "backward"))
    verdict = lambda met: "met" if met else "**MISSED**"
    rows = [["launches a layer, forward", "at most %d" % LAUNCHES_FORWARD, forward, verdict(forward <= LAUNCHES_FORWARD)],
            ["launches a layer, backward", "at most %d" % LAUNCHES_BACKWARD, backward, verdict(backward <= LAUNCHES_BACKWARD)],
            ["attention memory", "linear in T", "bytes a token within %.3f" % linear, verdict(linear < 1.01)],
            ["saved activations", "at most %.1f x the least" % SAVED_RATIO, "%.2f x" % saved, verdict(saved <= SAVED_RATIO)]]
    for batch, model in models[MFU_GPU].items():
        seconds = model.step()[1]
        at_32 = batch == max(models[MFU_GPU])
        rows.append(["MFU on %s, batch %d" % (MFU_GPU, batch), "at least %d %%" % (100 * MFU) if at_32 else "none",
                     percent(mfu(model, seconds)), verdict(mfu(model, seconds) >= MFU) if at_32 else ""])
    for name, by in models.items():
        for batch, model in by.items():
            _, _, share, slower = checkpoint(model, model.step()[1])
            rows.append(["step with a checkpoint, %s, batch %d" % (name, batch), "at most %d %% longer" % (100 * CHECKPOINT),
                         "%s, later ones %s" % (percent(share), percent(slower)), verdict(share <= CHECKPOINT)])
    return "\n".join(["## Targets (%s)" % LABEL, "", table(["what", "target", "model", ""], rows)])


def missed_part(models):
    lines = ["## Where targets are missed, and what would have to change", ""]
    model = next(iter(first_of(models).values()))
    backward = layer_launches(model, "backward")
    if len(backward) > LAUNCHES_BACKWARD:
        by_op = {}
        for launch in backward:
            by_op[launch.op] = by_op.get(launch.op, 0) + 1
        lines += ["**Launches backward: %d more than %d.** By operation: %s. To save: the two sums along the table for dKpos and "
                  "dQpos and the two for dq and dk could be batched in pairs (2 launches, at twice the scratch); "
                  "`dropout_bwd_add` is a plain sum without hidden dropout, which the product before it could accumulate "
                  "in fp32 (1); the bias gradients of the position rows and of the tokens are two sums into one vector (1)." %
                  (len(backward) - LAUNCHES_BACKWARD, LAUNCHES_BACKWARD, ", ".join("%s %d" % i for i in by_op.items())), ""]
    model = models[MFU_GPU][max(models[MFU_GPU])]
    totals, seconds = model.step()
    if mfu(model, seconds) < MFU:
        wanted = model.counts.sizes["flops"] / (MFU * model.gpu.peak)
        at_rate, gone = attention_floor(model)
        worst = sorted(totals.values(), key=lambda t: -t.seconds)[:4]
        lines += ["**MFU on %s, batch %d: %s, not %d %%.** The step takes %s ms by the model and would have to take %s: %s ms less. "
                  "The longest: %s." %
                  (MFU_GPU, model.counts.sizes["B"], percent(mfu(model, seconds)), 100 * MFU, ms(seconds), ms(wanted),
                   ms(seconds - wanted), "; ".join("`%s` %s ms (%s)" % (t.name, ms(t.seconds), t.bound) for t in worst)), "",
                  "What if, by the same model:", "",
                  table(["on %s, batch %d" % (MFU_GPU, model.counts.sizes["B"]), "step ms", "MFU"],
                        [[what, ms(t), percent(mfu(model, t))] for what, t in
                         [("as it is", seconds),
                          ("the attention kernels with half of their instructions", fewer_instructions(model, 0.5)),
                          ("with a quarter of them", fewer_instructions(model, 0.25)),
                          ("the attention kernels bound by mma.sync alone (no issue or shared memory limit)",
                                                  seconds - at_rate),
                          ("attention for nothing (its kernels and products)", seconds - gone)]]), "",
                  "The attention kernels issue about %s warp instructions for each mma.sync, where FlashAttention without position terms "
                  "needs about 5 (our estimate). By limits, the three of them in a step: issue %s ms, shared memory %s, the L2 cache %s, "
                  "mma.sync %s. What is left of instructions is products, loads and stores of what goes by way of shared memory, and the "
                  "softmax: 32 rows a warp instead of 16 would halve the loads of operands, at twice the registers. Without attention the "
                  "step stays above the target: the library's products take %s ms, what waits for memory (norms, GELU, sums, AdamW) %s." %
                  (instructions_a_mma(model), ms(attention_limit(model, "issue_s")), ms(attention_limit(model, "shared_s")),
                   ms(attention_limit(model, "L2_s")), ms(attention_limit(model, "tensor_s")), ms(linear_seconds(model)),
                   ms(seconds - gone - linear_seconds(model))), ""]
    missed = [(by[b], name, b) for name, by in models.items() for b in by
              if checkpoint(by[b], by[b].step()[1])[2] > CHECKPOINT]
    if missed:
        parts = ["%s, batch %d: %s ms waited of a step of %s" % (name, b, ms(checkpoint(m, m.step()[1])[1]), ms(m.step()[1]))
                 for m, name, b in missed]
        lines += ["**The step in which a checkpoint begins**: AdamW waits for what of the copy found no room beside the passes (%s)."
                  % "; ".join(parts), ""]
    if len(lines) == 2:
        lines.append("None is.")
    return "\n".join(lines)


def instructions_a_mma(model):
    found = ["%.0f" % (c["warp_instructions"] / c["mma"]) for c in model.counts.attention[model.gpu.arch].values()]
    return ", ".join(found)


def attention_part(models):
    rows = []
    for name, by_batch in models.items():
        for batch, model in by_batch.items():
            seen = set()
            for launch in model.counts.launches:
                if launch.base not in ATTENTION or launch.name in seen:
                    continue
                seen.add(launch.name)
                seconds, bound, d = model.kernel(launch)
                rows.append([name, batch, "`%s`" % launch.name, "%.1f" % (d["mma_flops"] / 1e9), "%.1f" % (d["warp_instructions"] / 1e6),
                             d["blocks_per_multiprocessor"], percent(d["issue_share"]), us(d["tensor_s"]), us(d["issue_s"]),
                             us(d["shared_s"]), us(d["L2_s"]), us(d["memory_s"]), "%.2f" % d["stretch"], us(seconds), bound])
    return "\n".join(["## The attention kernels, one launch of each (%s)" % LABEL, "",
                      table(["GPU", "batch", "kernel", "mma.sync GFLOP", "million warp instructions", "blocks an SM", "issue slots used",
                             "tensor us", "issue us", "shared us", "L2 us", "memory us", "waves", "us", "bound"], rows)])


def kernels_part(name, by_batch):
    batches = list(by_batch)
    totals = {b: by_batch[b].step() for b in batches}
    keys = {}  # a product's name has the tokens in it: rows of the batches are matched by their order
    for b in batches:
        for at, key in enumerate(totals[b][0]):
            keys.setdefault(at, []).append(key)
    rows = []
    for at, names in sorted(keys.items()):
        row = ["`%s`" % names[0] if len(set(names)) == 1 else "`%s`" % names[0].split(" [")[0] + " " + "; ".join(
            "[" + n.split(" [")[1] for n in names if " [" in n)]
        for b, key in zip(batches, names):
            t = totals[b][0][key]
            row += ["%d" % t.launches, "%.1f" % (t.nbytes / t.launches / 1e6), "%.1f" % (t.flops / t.launches / 1e9), us(t.seconds / t.launches),
                    ms(t.seconds), t.bound]
        rows.append(row)
    rows.append(["**total**"] + [c for b in batches for c in (
        "**%d**" % sum(t.launches for t in totals[b][0].values()), "", "", "", "**%s**" % ms(totals[b][1]), "")])
    header = ["kernel"] + ["%s (batch %d)" % (c, b) for b in batches for c in ("launches", "MB", "GFLOP", "us", "ms a step", "bound")]
    return "\n".join(["### %s" % name, "", table(header, rows)])


def eager_part(models):
    lines = ["## The eager Hugging Face graph (%s)" % LABEL, "",
             "Every kernel is listed in tools/gpu_model/eager.py. At least 3 us a launch here too, although PyTorch's host side needs "
             "5 to 10 us for many of them: the comparison favours the eager graph.", ""]
    for batch in first_of(models):
        found = {name: by_batch[batch].eager() for name, by_batch in models.items()}
        groups = list(next(iter(found.values()))[0])
        rows = []
        for group in groups:
            t = next(iter(found.values()))[0][group]
            rows.append([group, "%d" % t.launches, "%.1f" % (t.nbytes / 1e9), "%.2f" % (t.flops / 1e12)] +
                        [ms(found[n][0][group].seconds) for n in found])
        one = next(iter(found.values()))[0].values()
        rows.append(["**total**", "**%d**" % sum(t.launches for t in one), "**%.1f**" % (sum(t.nbytes for t in one) / 1e9),
                     "**%.2f**" % (sum(t.flops for t in one) / 1e12)] + ["**%s**" % ms(found[n][1]) for n in found])
        lines += [table(["batch %d" % batch, "launches", "GB", "TFLOP"] + ["%s ms" % n for n in found], rows), ""]
    return "\n".join(lines)


def groups_part(models):
    """The step by what takes the time."""
    rows = []
    for name, by_batch in models.items():
        for batch, model in by_batch.items():
            totals, seconds = model.step()
            parts = {"attention kernels": 0.0, "attention's products": 0.0, "linear layers": 0.0, "optimizer": 0.0, "rest": 0.0}
            for t in totals.values():
                kind = "rest"
                if t.name.split("<")[0] in ATTENTION:
                    kind = "attention kernels"
                elif t.attention:
                    kind = "attention's products"
                elif t.name.startswith("product"):
                    kind = "linear layers"
                elif t.name.split("<")[0] in ("adamw_kernel", "sum_squares_kernel"):
                    kind = "optimizer"
                parts[kind] += t.seconds
            rows.append([name, batch] + ["%s (%d %%)" % (ms(v), round(100 * v / seconds)) for v in parts.values()] + [ms(seconds)])
    return "\n".join(["## Where the step's time goes, ms (%s)" % LABEL, "",
                      table(["GPU", "batch"] + list(parts) + ["step"], rows)])


def assumptions_part(models):
    rows = [[g.name, g.multiprocessors, "%.2f" % (g.clock / 1e9), "%.2f" % (g.bandwidth / 1e12), "%.0f" % (g.peak / 1e12),
             "%.0f" % (g.mma_rate / 1e12), "%.2f" % g.product_share, "%.0f" % (g.pcie / 1e9), g.note] for g in hardware.GPUS]
    model = models[MFU_GPU][max(models[MFU_GPU])]
    spread = "; ".join("%.2f: %s ms, MFU %s" % (r, ms(t), percent(mfu(model, t))) for r, t in sensitivity(model))
    ratios = "; ".join("sm_%s %s" % (arch, ", ".join("%.2f" % v for v in r.values())) for arch, r in model.counts.ratios.items())
    return "\n".join([
        "## How the numbers come about", "",
        "Counted, on the emulated device:",
        "- Launches, grids, products: the real program, one step at the full shape, all layers (`CUDAEMU_KERNELS=count`: kernels are "
        "not run; their number does not depend on data). A library product counts as one launch; a split of its inner dimension "
        "may make it two.",
        "- Attention kernels (mma.sync, ldmatrix, warp instructions, shared memory, barriers): nvcc's PTX of sm_80, sm_90, sm_100 run "
        "at the real lengths of the batch with one head, times the heads; a batch in which every length occurs twice as half of it, "
        "doubled. `--verify` shows that two heads, and two sequences, count exactly twice.",
        "- A warp instruction counts once for its lanes between two barriers; lanes that part and take turns make it more, so these "
        "counts are a lower bound (the writing of dc2p and dp2c parts most).",
        "- PTX to machine instructions: the size of ptxas's code over the number of PTX instructions, both static: %s." % ratios,
        "- Bytes: formulas (tools/gpu_model/formulas.py), each within 0.5 % of the emulator's count of different bytes (`--verify`; CI).",
        "- GELU and AdamW: warp instructions a byte from the same PTX runs; the other kernels are taken to wait for memory.", "",
        "Published (P) and assumed (A):", "",
        table(["GPU", "SMs (P)", "GHz (A)", "TB/s (P)", "bf16 TFLOP/s (P)", "mma.sync TFLOP/s (A)", "large products (A)", "PCIe GB/s (A)", ""], rows), "",
        "- Streaming kernels reach %.2f of the bandwidth, transposing and gathering ones %.2f. No credit for what L2 keeps between "
        "launches." % (hardware.BANDWIDTH_SHARE, hardware.STRIDED_SHARE),
        "- A launch: the larger of its kernel's time and %.0f us, and %.0f us to the next." % (hardware.LAUNCH_MIN * 1e6, hardware.LAUNCH_GAP * 1e6),
        "- A warp alone could issue in %.2f of the clocks (%s, batch %d, with other values: %s), less its waits for tiles, %d clocks each."
        % (hardware.READY, MFU_GPU, model.counts.sizes["B"], spread, hardware.TILE_WAIT),
        "- Shared memory: 128 bytes a clock and SM; scattered floats of the position terms conflict twice, ldmatrix and index loads not.",
        "- Waves: attention blocks are placed in order on the first free place (blocks an SM from registers and shared memory); "
        "products by the best of six tile sizes and splits of the inner dimension, whole waves; streaming kernels lose half of their "
        "last wave.",
        "- Products with a side that is no multiple of 8 where it lies contiguous (R = 511 of 512 in `attention_bwd`) take the "
        "library's narrow loads: half the rate.",
        "- No hidden dropout, no gradient all-reduce, one GPU."])


def markdown(preset, models, plans):
    memory, saved, linear = memory_part(plans)
    parts = ["# The CUDA backend's speed: %s" % LABEL,
             "Made by `tools/gpu-model`; %s, bf16, fused attention, real lengths. No GPU took part: **every time, rate and MFU below is "
             "%s.**" % (preset, LABEL),
             summary_part(models), groups_part(models), targets_part(models, saved, linear), missed_part(models), counts_part(models),
             attention_part(models), "## Kernels (%s)" % LABEL,
             "Bytes and GFLOP are of one launch; `us` is its time with the gap to the next.",
             *[kernels_part(name, by_batch) for name, by_batch in models.items()], eager_part(models), memory,
             assumptions_part(models)]
    return "\n\n".join(p.strip() for p in parts)


def as_json(preset, models, plans):
    _, saved, linear = memory_part(plans)
    result = {"label": LABEL, "preset": preset, "saved_over_least": saved, "attention_bytes_linear": linear, "gpus": {}}
    for name, by_batch in models.items():
        result["gpus"][name] = {}
        for batch, model in by_batch.items():
            totals, seconds = model.step()
            eager, eager_seconds = model.eager()
            copy, waits, share, slower = checkpoint(model, seconds)
            as_dict = lambda found: {t.name: {"launches": t.launches, "seconds": t.seconds, "bytes": t.nbytes, "flops": t.flops,
                                              "bound": t.bound} for t in found.values()}
            result["gpus"][name][batch] = {
                "step_seconds": seconds, "mfu": mfu(model, seconds), "tokens": model.counts.sizes["T"],
                "launches_layer_forward": len(layer_launches(model, "forward")),
                "launches_layer_backward": len(layer_launches(model, "backward")), "kernels": as_dict(totals),
                "eager_seconds": eager_seconds, "eager_kernels": as_dict(eager),
                "checkpoint": {"copy_seconds": copy, "waited_seconds": waits, "share_of_its_step": share,
                               "share_of_later_steps": slower}}
    return result
