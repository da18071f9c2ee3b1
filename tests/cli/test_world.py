"""Ranks that do not belong together are refused before anything is trained, by name and with the cure."""

import os
import re
import shutil
import subprocess
import sys
import unittest

from program import *


def can_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@unittest.skipIf(SANITIZED, "too slow with sanitizers")
class World(ProgramTest):
    def setUp(self):
        super().setUp()
        self.out = self.path("run")
        self.words = ["train"] + [str(w) for w in arguments(dict(TINY, output_dir=self.out))]

    def refused(self, second, code, *words, env=None):
        """Rank 0 is the program; rank 1 is what `second` starts."""
        full = ["mpirun", "--oversubscribe", "-np", "1", PROGRAM] + self.words + [":", "-np", "1"] + second
        done = subprocess.run(full, env=env or environment(), capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, code, done.stderr)
        lines = [l for l in done.stderr.split("\n")
                 if l.startswith("fb3-dist: ") and not re.match("fb3-dist: (warning|[0-9]+ essays)", l)]
        self.assertTrue(lines, done.stderr)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertFalse(os.path.exists(os.path.join(self.out, "run.yaml")))

    def test_another_build(self):
        other = self.path("fb3-dist")
        shutil.copy(PROGRAM, other)
        with open(other, "ab") as f:
            f.write(b"\0")
        self.refused([other] + self.words, 1, "rank 1", "program: its hash")

    def test_another_configuration(self):
        self.refused([PROGRAM] + self.words + ["--seed", "7"], 1, "rank 1", "configuration: its hash")

    def beside(self, script):
        """A rank with mounts of its own."""
        return ["unshare", "-m", "sh", "-c", script + ' && exec "$@"', "sh", PROGRAM] + self.words

    @unittest.skipUnless(can_mount(), "needs root and mount namespaces")
    def test_a_directory_of_its_own(self):
        os.makedirs(self.out)
        self.refused(self.beside("mount -t tmpfs none " + self.out), 2, "rank 1", "output_dir", "share")

    @unittest.skipUnless(can_mount(), "needs root and mount namespaces")
    def test_other_data(self):
        """The run directory is shared, and yet this node sees another data set in it."""
        for name, seed in [("one", 1), ("two", 2)]:
            rewritten = self.path(name + ".csv")
            with open(TRAIN, encoding="utf-8") as a, open(rewritten, "w", encoding="utf-8") as b:
                b.write(a.read().replace("The", "The" if seed == 1 else "A"))
            run("prepare", train_file=rewritten, tokenizer=SPM, max_length=64, output=self.path(name + ".h5"))
        self.words += ["--train_file", self.path("one.h5")]
        self.refused(self.beside("mount --bind %s %s" % (self.path("two.h5"), self.path("one.h5"))), 1, "rank 1",
                     "data set: its hash")

    @unittest.skipUnless(can_mount(), "needs root and mount namespaces")
    def test_other_weights(self):
        """Weights are read by the first rank of each group."""
        run("train", **dict(TINY, output_dir=self.path("start"), max_steps=1))
        for name, fold in [("one", "best.h5"), ("two", "best.h5")]:
            run("export", self.path("start", "fold-0", fold), output=self.path(name))
        with open(self.path("two", "model.safetensors"), "r+b") as f:
            f.seek(-2, os.SEEK_END)
            f.write(b"\x01")
        self.words = ["train", "--fold_groups", "2", "--train_folds", "all"] + [str(w) for w in arguments(
            {k: v for k, v in dict(TINY, output_dir=self.out, model_name_or_path=self.path("one")).items()
             if k not in ("model_preset", "init", "train_folds")})]
        self.refused(self.beside("mount --bind %s %s" % (self.path("two"), self.path("one"))), 1, "rank 1",
                     "weights: its hash")


if __name__ == "__main__":
    unittest.main(verbosity=2)
