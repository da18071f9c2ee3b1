"""Instructions of one small training step on the AVX2 path, function by function, under callgrind: a guard against work
that creeps in, which no clock disturbs. valgrind hides AVX-512 from the program, so it takes the AVX2 table; oneDNN's own
code, compiled at run time, is not counted. Committed figures are those of Debian 12's compiler.

    test_instructions.py --write     takes the figures anew
"""

import json
import os
import re
import subprocess
import sys
import unittest

from program import *

FIGURES = os.path.join(SOURCE, "tests", "cli", "instructions.json")
DUMP = os.path.join(os.path.dirname(PROGRAM), "tests", "model_dump")
TOLERANCE = 0.05
CASE = {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 256, "vocab": 97, "targets": 6,
        "lengths": [200, 131, 64, 17], "loss": "mse", "dropout": [0.1, 0.1, 0.2]}
COUNTED = re.compile(r"_cpu_avx2|head_forward|head_backward|score_strip|finish_|bias_gradient|position_gradients")


def compiler():
    """The compiler that the build used, or why the figures do not apply."""
    version = subprocess.run(["cc", "-dumpfullversion"], capture_output=True, text=True).stdout.strip()
    return version if version.startswith("12.") else None


def counts(folder):
    """{function: instructions} by callgrind's own costs; names appear once in full and then as numbers."""
    case, out, dump = (os.path.join(folder, n) for n in ("case.json", "callgrind.out", "dump"))
    with open(case, "w") as f:
        json.dump(CASE, f)
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=" + out, DUMP, "cpu", case, dump],
                          env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    names, cost, function, skip = {}, {}, None, False
    for line in open(out):
        match = re.match(r"fn=\((\d+)\)(?: (.*))?$", line)
        if match:
            if match.group(2):
                names[match.group(1)] = match.group(2)
            function = names[match.group(1)]
        elif re.match(r"cfn=\((\d+)\)(?: (.*))?$", line):
            m = re.match(r"cfn=\((\d+)\)(?: (.*))?$", line)
            if m.group(2):
                names[m.group(1)] = m.group(2)
        elif line.startswith("calls="):
            skip = True  # the next line is the cost inside the callee
        elif re.match(r"[\d+*-]", line):
            if not skip and function:
                cost[function] = cost.get(function, 0) + int(line.split()[1])
            skip = False
    total = {}
    for name, instructions in cost.items():
        if COUNTED.search(name):
            plain = re.sub(r"'\d+$|\.isra.*$|\.constprop.*$|\.part.*$", "", name)
            total[plain] = total.get(plain, 0) + instructions
    return total


class Instructions(ProgramTest):
    def test_a_step(self):
        if SANITIZED:
            self.skipTest("valgrind and sanitizers exclude each other")
        if not shutil.which("valgrind"):
            self.skipTest("valgrind is not installed")
        if not compiler():
            self.skipTest("the figures are those of gcc 12")
        with open(FIGURES) as f:
            expected = json.load(f)
        got = counts(self.folder)
        self.assertEqual(sorted(got), sorted(expected))
        for name, instructions in got.items():
            self.assertLess(instructions, expected[name] * (1 + TOLERANCE) + 1000,
                            "%s: %d instructions, %d before" % (name, instructions, expected[name]))
        self.assertLess(abs(sum(got.values()) / sum(expected.values()) - 1), TOLERANCE)


if __name__ == "__main__":
    if "--write" in sys.argv:
        with tempfile.TemporaryDirectory() as folder, open(FIGURES, "w") as f:
            json.dump(dict(sorted(counts(folder).items())), f, indent=1)
            f.write("\n")
    else:
        unittest.main()
