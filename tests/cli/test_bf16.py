"""bf16 arithmetic: the same bits on any number of threads and after an interruption, near float, and refused by name where
the processor lacks it."""

import os
import unittest

from program import *


def has_bf16():
    line = [l for l in run("doctor", code=None).stdout.splitlines() if " bf16 " in l]
    return bool(line) and line[0].startswith("ok") and "no AVX512-BF16" not in line[0]


class Bf16(ProgramTest):
    def setUp(self):
        super().setUp()
        if not has_bf16():
            self.skipTest("bf16: this processor has no AVX512-BF16")

    def losses(self, directory):
        return [e["loss"] for e in events(directory, 0, "step")]

    def test_auto_is_bf16_and_stored(self):
        run("train", **dict(TINY, output_dir=self.path("run"), bf16="auto"))
        with open(self.path("run", "run.yaml")) as f:
            self.assertIn("bf16: true", f.read())

    def test_a_resumed_run_keeps_its_arithmetic(self):
        run("train", **dict(TINY, output_dir=self.path("run"), max_steps=3))
        done = run("train", env=environment(FB3_BF16="auto"), **dict(TINY, output_dir=self.path("run"), max_steps=3))
        self.assertNotIn("bf16", done.stdout)
        done = run("train", code=2, **dict(TINY, output_dir=self.path("run"), max_steps=3, bf16=True))
        self.assertIn("bf16", done.stderr)

    def test_near_float(self):
        other = self.path("float")
        run("train", **dict(TINY, output_dir=self.path("half"), bf16=True))
        run("train", **dict(TINY, output_dir=other, bf16=False))
        for a, b in zip(self.losses(self.path("half")), self.losses(other)):
            self.assertLess(abs(a - b) / b, 1e-2)
        self.assertNotEqual(self.losses(self.path("half")), self.losses(other))

    def test_threads_do_not_change_bits(self):
        sums = []
        for threads in (1, 2, 3):
            directory = self.path(str(threads))
            run("train", env=environment(OMP_NUM_THREADS=str(threads)),
                **dict(TINY, output_dir=directory, bf16=True, hidden_dropout_prob=0.1,
                       attention_probs_dropout_prob=0.1))
            sums.append(self.losses(directory))
        self.assertEqual(sums[0], sums[1])
        self.assertEqual(sums[0], sums[2])


class WithoutBf16(ProgramTest):
    def test_refused_by_name(self):
        if has_bf16():
            self.skipTest("bf16: this processor has AVX512-BF16")
        done = run("train", code=2, **dict(TINY, output_dir=self.path("run"), bf16=True))
        self.assertIn("AVX512-BF16", done.stderr)


if __name__ == "__main__":
    unittest.main()
