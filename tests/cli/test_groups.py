"""Fold groups: folds side by side, on parts of the world."""

import os
import re
import signal
import time
import unittest

from program import *

FOLDS = dict(TINY, folds=4, train_folds="all", hidden_dropout_prob=0.1, max_steps=6)
LONG = dict(FOLDS, folds=2, max_steps=80, save_strategy="steps", save_steps=20, eval_strategy="no", max_train_samples=32)


def folds_on_disk(out):
    return sorted(n for n in os.listdir(out) if n.startswith("fold-"))


def digests(out, name="best.h5"):
    return {n: weights_digest(os.path.join(out, n, name)) for n in folds_on_disk(out)}


class Groups(ProgramTest):
    def table(self, done):
        """rank -> (group, folds) of the start table."""
        found = re.findall(r"^ *(\d+)  \S+ +\d+ +\d+  .*  group (\d+): (?:fold ([\d, ]+)|nothing to train)$", done.stdout, re.M)
        return {int(rank): (int(group), [int(k) for k in folds.split(", ")] if folds else [])
                for rank, group, folds in found}

    def test_same_models_as_one_group(self):
        """Groups of one rank do what one rank does, fold by fold, bit for bit; and the scores are pooled."""
        alone, groups = self.path("alone"), self.path("groups")
        run("train", **dict(FOLDS, output_dir=alone))
        done = run("train", ranks=2, fold_groups=2, **dict(FOLDS, output_dir=groups))
        self.assertEqual(self.table(done), {0: (0, [0, 2]), 1: (1, [1, 3])})
        self.assertEqual(digests(groups), digests(alone))
        for fold in range(4):
            self.assertEqual(losses(groups, fold), losses(alone, fold))
            first = events(groups, fold, "run")[0]
            self.assertEqual((first["world_size"], first["ranks"]), (2, 1))
        self.assertEqual(summary(groups)["pooled"], summary(alone)["pooled"])
        self.assertEqual(rows(os.path.join(groups, "oof.csv")), rows(os.path.join(alone, "oof.csv")))

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_groups_of_two(self):
        """The global batch is one number for all folds, whatever a group's size, and a group reduces by itself."""
        alone, groups = self.path("alone"), self.path("groups")
        two = dict(FOLDS, folds=2)
        run("train", **dict(two, output_dir=alone))
        done = run("train", ranks=4, fold_groups=2, **dict(two, output_dir=groups))
        self.assertEqual(self.table(done), {0: (0, [0]), 1: (0, [0]), 2: (1, [1]), 3: (1, [1])})
        for fold in range(2):
            for u, v in zip(losses(alone, fold), losses(groups, fold)):
                self.assertLess(abs(u - v) / abs(u), 1e-4)

    def test_batch_of_the_smallest_group(self):
        options = dict(FOLDS, folds=2, fold_groups=2, dry_run=True, output_dir=self.path("dry"))
        del options["total_train_batch_size"]
        done = run("train", ranks=4, **options)
        self.assertIn("global batch        16: 2 group(s) of 2 rank(s), 1 micro-batch(es) of at most 8", done.stdout)

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_auto_is_one_group_on_one_node(self):
        done = run("train", ranks=2, **dict(FOLDS, folds=2, output_dir=self.path("run")))
        self.assertEqual(self.table(done), {0: (0, [0, 1]), 1: (0, [0, 1])})

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_what_does_not_divide(self):
        for groups, ranks, word in [(3, 2, "nodes"), (5, 5, "4 folds"), (2, 3, "equal parts")]:
            with self.subTest(groups=groups, ranks=ranks):
                done = run("train", ranks=ranks, code=2, fold_groups=groups, **dict(FOLDS, output_dir=self.path("refused")))
                line = [l for l in done.stderr.split("\n") if l.startswith("fb3-dist: ") and "fold_groups" in l]
                self.assertEqual(len(line), 1, done.stderr)
                self.assertIn(word, line[0])
                self.assertFalse(os.path.exists(self.path("refused", "run.yaml")))

    def wait_for_steps(self, process, out, folds, steps):
        end = time.time() + 60
        while time.time() < end and process.poll() is None:
            if all(steps_done(out, k) >= steps for k in folds):
                return
            time.sleep(0.05)
        self.fail("no steps: " + process.communicate()[1])

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_stop_of_one_rank_stops_all_groups(self):
        """A signal that only one rank gets: every group stops with a checkpoint; other groups go on from there."""
        out, whole = self.path("stopped"), self.path("whole")
        run("train", **dict(LONG, output_dir=whole))
        process = start("train", ranks=2, fold_groups=2, **dict(LONG, output_dir=out))
        self.wait_for_steps(process, out, [0, 1], 5)
        os.kill(pid_of_rank(out, 1), signal.SIGUSR1)
        _, said = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, said)
        for fold in range(2):
            self.assertLess(len(events(out, fold, "step")), 80)
        run("train", **dict(LONG, output_dir=out))  # one rank, one group
        self.assertEqual(digests(out), digests(whole))

    def test_complete_folds_are_left_alone(self):
        """A fold is trained once, whatever the groups of the next start; what is left goes to all ranks."""
        out = self.path("run")
        run("train", **dict(FOLDS, folds=2, train_folds=0, output_dir=out))
        before = os.stat(os.path.join(out, "fold-0", "best.h5")).st_mtime_ns
        done = run("train", ranks=2, fold_groups=2, **dict(FOLDS, folds=2, output_dir=out))
        self.assertEqual(self.table(done), {0: (0, [1]), 1: (0, [1])})
        self.assertEqual(os.stat(os.path.join(out, "fold-0", "best.h5")).st_mtime_ns, before)
        done = run("train", ranks=2, fold_groups=2, **dict(FOLDS, folds=2, output_dir=out))
        self.assertEqual(self.table(done), {0: (0, []), 1: (0, [])})

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_a_lost_rank_ends_all_groups(self):
        out = self.path("lost")
        process = start("train", ranks=2, fold_groups=2, **dict(LONG, output_dir=out))
        self.wait_for_steps(process, out, [0, 1], 3)
        os.kill(pid_of_rank(out, 1), signal.SIGKILL)
        began = time.time()
        process.communicate(timeout=60)
        self.assertNotEqual(process.returncode, 0)
        self.assertLess(time.time() - began, 20)
        self.assertEqual(pids_of(out), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
