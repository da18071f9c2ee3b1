"""The formulas and scalings of the model against the emulator's own counts."""

from . import formulas
from .model import ATTENTION

TOLERANCE, SLACK = 0.005, 256  # a share of the bytes, or bytes: counters and offsets that formulas leave out
AGAIN = 0.05  # what a block of attention's backward pass reads of dc2p and dp2c again soon after it stored it: from the L2 cache
SMALL = {"layers": 1, "heads": 2, "intermediate": 320, "vocab": 300, "sequences": 2, "max_length": 200}
SCALED = ("mma ldmatrix async_copies block_barriers warp_operations shuffles instructions warp_instructions fp32 fp32_special "
          "shared_read shared_written warp_narrow_loads warp_shared_loads warp_shared_stores").split()


def check_bytes(step):
    sizes, failures, seen = formulas.complete(step), 0, {}
    for launch in step.launches:
        if launch.kind != "kernel":
            continue
        c = launch.counters
        counted = c["unique_read"] + c["unique_written"]
        formula = formulas.kernel_bytes(launch, sizes)
        key = (launch.name, launch.op, formula)
        again = AGAIN if launch.base == "attention_bwd_kernel" else 0
        off = max(formula - counted, counted - formula - again * counted)
        seen[key] = max(seen.get(key, (0, 0)), (off, counted))
    for (name, op, formula), (off, counted) in sorted(seen.items()):
        wrong = off > max(TOLERANCE * counted, SLACK)
        failures += wrong
        print("%s bytes of %-60s formula %9d, counted %9d" % ("FAIL" if wrong else "ok  ", name + " " + op, formula, counted))
    return failures


def check_doubled(emulator, two, what, **half):
    """The attention kernels of two heads (of two sequences of one length) do exactly twice what they do of one."""
    one, failures = emulator.run(ptx="90", **dict(SMALL, **half)), 0
    alone = {l.name: l.counters for l in one.launches if l.base in ATTENTION}
    for launch in two.launches:
        if launch.base not in ATTENTION:
            continue
        wrong = [k for k in SCALED if launch.counters[k] != 2 * alone[launch.name][k]]
        failures += bool(wrong)
        print("%s counts of %s are twice those of one %s%s" % ("FAIL" if wrong else "ok  ", launch.name, what, "".join(
            "; %s: %d, of one %d" % (k, launch.counters[k], alone[launch.name][k]) for k in wrong)))
    return failures


def shapes_of(launches):
    return [(l.kind, l.name, l.grid, l.threads, l.shared, l.numbers) for l in launches]


def check_layers(emulator, one_layer):
    """All layers launch the same, and a step that is only counted launches what a step that runs does."""
    three, failures = emulator.run(kernels="count", **dict(SMALL, layers=3)), 0
    counted = emulator.run(kernels="count", **SMALL)
    for launch in one_layer.launches:  # PTX mode adds the static part to a launch's shared memory
        launch.shared = 0
    for launch in counted.launches + three.launches:
        launch.shared = 0
    for phase in ("forward", "backward"):
        expected = shapes_of(one_layer.of_layer(0, phase))
        for what, step, layer in [("counted", counted, 0)] + [("of three", three, l) for l in range(3)]:
            wrong = shapes_of(step.of_layer(layer, phase)) != expected
            failures += wrong
            print("%s %s: %d launches of layer %d, %s" % ("FAIL" if wrong else "ok  ", phase, len(expected), layer, what))
    return failures


def verify(emulator):
    step = emulator.run(ptx="90", **SMALL)
    failures = check_layers(emulator, step) + check_bytes(step)
    failures += check_doubled(emulator, step, "head", heads=1)
    failures += check_doubled(emulator, step, "sequence", sequences=1)
    print("%d failures" % failures)
    return 1 if failures else 0
