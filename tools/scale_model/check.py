"""The formulas of shapes.py against the published counts, and against the program.

Of a build: tests/param_ranges prints the parameter table's ranges of each preset; fb3-dist itself takes a step on two
ranks under tests/comm/count.c, which writes down what is given to MPI_Iallreduce."""

import json
import os
import subprocess
import tempfile

from . import launch, shapes, validate

PROGRAM_PRESETS = ("tiny", "deberta-v3-xsmall")
VOCABULARY, ACTIVE = shapes.VOCABULARY, shapes.ACTIVE_ROWS


class Checks:
    def __init__(self):
        self.failures = 0

    def equal(self, what, formula, found):
        self.failures += formula != found
        print("%s %s" % ("ok  " if formula == found else "FAIL", what))
        if formula != found:
            print("     by formula %s\n     found      %s" % (formula, found))


def published(checks):
    for preset, count in shapes.PUBLISHED.items():
        formula = sum(sum(sizes) for sizes in shapes.parameters_of(shapes.SHAPES[preset], VOCABULARY)[1:])
        checks.equal("%s: %d parameters, as published" % (preset, count), formula, count)


def table(checks, build):
    """Of more than one vocabulary and number of active rows, so that nothing agrees by chance."""
    for vocabulary, active in ((VOCABULARY, ACTIVE), (VOCABULARY, 801), (251000, 250999)):
        out = subprocess.run([os.path.join(build, "tests", "param_ranges"), str(vocabulary), str(active), str(shapes.TARGETS)],
                             check=True, capture_output=True, text=True).stdout
        for preset, found in json.loads(out).items():
            shape, what = shapes.SHAPES[preset], "%s, %d of %d rows" % (preset, active, vocabulary)
            checks.equal(what + ": ranges", shapes.ranges(preset, active), found["ranges"])
            counts = [sum(sum(sizes) for sizes in shapes.parameters_of(shape, rows)) for rows in (active, vocabulary)]
            checks.equal(what + ": parameters", counts, [found["parameters"], found["full_parameters"]])


def active_rows(folder):
    with open(os.path.join(folder, "run", "fold-0", "metrics.jsonl")) as log:
        return json.loads(log.readline())["active_vocabulary"]


def sums(checks, build, preset):
    """What two ranks give to MPI in one step."""
    case = validate.Case(preset, 1, 16, 1)
    with tempfile.TemporaryDirectory() as folder:
        validate.write_essays(os.path.join(folder, "train.csv"), 1)
        library = os.path.abspath(os.path.join(build, "tests", "libcomm_count.so"))
        command = ["mpirun", "--oversubscribe", "-np", "2", "-x", "LD_PRELOAD=" + library,
                   os.path.abspath(os.path.join(build, "fb3-dist"))] + validate.train_arguments(case, folder)
        done = subprocess.run(command, env=dict(launch.environment(), FB3_COUNT_DIR=folder), cwd=folder, capture_output=True,
                              text=True, timeout=100)
        if done.returncode != 0:
            raise SystemExit("%s: %s" % (" ".join(command), done.stderr))
        formula = [n for r in shapes.ranges(preset, active_rows(folder)) for n in shapes.pieces(r)]
        for rank in "0", "1":
            with open(os.path.join(folder, rank)) as lines:
                found = [int(line.split()[1]) for line in lines if line.startswith("sum ")]
            checks.equal("%s, rank %s: %d sums of a step" % (preset, rank, len(formula)), formula, found)


def check(build):
    """0 if all agree. `build` None: the published counts only."""
    checks = Checks()
    published(checks)
    if build is not None:
        table(checks, build)
        if os.environ.get("FB3_TEST_SANITIZED") != "1":  # the counting library wants to be the first
            for preset in PROGRAM_PRESETS:
                sums(checks, build, preset)
    return checks.failures
