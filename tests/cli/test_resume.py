"""Stopped, killed and continued: the same bits as a run that was not; nothing lost beyond the last checkpoint."""

import os
import random
import re
import signal
import time
import unittest

from program import *

LONG = dict(TINY, max_steps=60, save_strategy="steps", save_steps=3, eval_strategy="steps", eval_steps=20,
            hidden_dropout_prob=0.1)


def wait_for_step(process, run_directory, step):
    limit = time.time() + 60
    while steps_done(run_directory) < step and process.poll() is None and time.time() < limit:
        time.sleep(0.01)


class Resume(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="fb3-resume-")
        cls.whole = {}
        for ranks in [1, 2]:
            out = os.path.join(cls.shared, "whole-%d" % ranks)
            run("train", ranks=ranks, **dict(LONG, output_dir=out))
            cls.whole[ranks] = (losses(out), weights_digest(os.path.join(out, "fold-0", "last.h5")))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared)

    def assertSameAsWhole(self, out, ranks):
        self.assertEqual([e["step"] for e in events(out, 0, "step")], list(range(1, 61)))
        self.assertEqual(losses(out), self.whole[ranks][0])
        self.assertEqual(weights_digest(os.path.join(out, "fold-0", "last.h5")), self.whole[ranks][1])

    def test_stop_signals(self):
        for ranks, number in [(1, signal.SIGTERM), (2, signal.SIGUSR1)]:
            out = self.path("run-%d" % ranks)
            process = start("train", ranks=None if ranks == 1 else ranks, **dict(LONG, output_dir=out))
            wait_for_step(process, out, 10)
            process.send_signal(number)
            _, text = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 75, text)
            self.assertIn("run again", text)
            self.assertLess(steps_done(out), 60)
            run("train", ranks=ranks, **dict(LONG, output_dir=out))
            self.assertSameAsWhole(out, ranks)

    def test_killed_again_and_again(self):
        out, chance, kills = self.path("run"), random.Random(5), 0
        while steps_done(out) < 60 and kills < 40:
            process = start("train", **dict(LONG, output_dir=out))
            wait_for_step(process, out, min(steps_done(out) + chance.randrange(4, 14), 60))
            time.sleep(chance.random() * 0.05)
            if process.poll() is None:
                kill_all(process, out)
                kills += 1
        self.assertGreater(kills, 2)
        run("train", **dict(LONG, output_dir=out))
        self.assertSameAsWhole(out, 1)

    def test_a_rank_that_dies_ends_the_job(self):
        out = self.path("run")
        process = start("train", ranks=2, **dict(LONG, max_steps=100000, output_dir=out))
        wait_for_step(process, out, 5)
        ranks = pids_of(out)
        self.assertEqual(len(ranks), 2)
        os.kill(max(ranks), signal.SIGKILL)
        began = time.time()
        process.communicate(timeout=30)
        seconds = time.time() - began
        self.assertLess(seconds, 10)
        self.assertNotEqual(process.returncode, 0)
        print("a rank killed: the job ended after %.1f s" % seconds)

    def test_one_run_at_a_time(self):
        out = self.path("run")
        process = start("train", ranks=2, **dict(LONG, max_steps=100000, output_dir=out))
        wait_for_step(process, out, 2)
        done = run("train", code=2, **dict(LONG, max_steps=100000, output_dir=out))
        self.assertIn("another process", self.assertOneLine(done))
        # the launcher alone is killed: its ranks live on for a moment, and the next start waits for their end
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        options = dict(LONG, max_steps=100000, output_dir=out)
        again = start("train", ranks=2, **options)
        time.sleep(4)
        self.assertIsNone(again.poll())
        kill_all(again, out)
        steps = [e["step"] for e in events(out, 0, "step")]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))

    def test_other_numbers_of_ranks_continue(self):
        out = self.path("run")
        process = start("train", **dict(LONG, output_dir=out))
        wait_for_step(process, out, 10)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        run("train", ranks=3, **dict(LONG, output_dir=out))
        for a, b in zip(losses(out), self.whole[1][0]):
            self.assertLess(abs(a - b) / b, 1e-3)

    def test_what_may_not_change(self):
        out = self.path("run")
        run("train", **dict(LONG, max_steps=6, output_dir=out))
        for key, value in [("learning_rate", 2e-3), ("seed", 7), ("folds", 3), ("total_train_batch_size", 8),
                           ("max_length", 32), ("loss_type", "mse")]:
            done = run("train", code=2, **dict(LONG, max_steps=6, output_dir=out, **{key: value}))
            self.assertIn(key, self.assertOneLine(done))
        run("train", code=2, **dict(LONG, max_steps=6, output_dir=out, resume="never"))
        run("train", **dict(LONG, max_steps=6, output_dir=out, per_device_train_batch_size=4, logging_steps=2))

    def test_what_a_kill_left_is_removed(self):
        """Of a fold that is complete, and of one that is not: left-overs may be as large as all checkpoints together."""
        out, options = self.path("run"), dict(LONG, folds=2, train_folds="all", max_steps=6)
        run("train", **dict(options, output_dir=out))
        names = [sorted(os.listdir(os.path.join(out, "fold-%d" % fold))) for fold in range(2)]
        shutil.rmtree(os.path.join(out, "fold-1"))
        os.makedirs(os.path.join(out, "fold-1"))
        for left in ["fold-0/previous.h5", "fold-0/previous.h5.%s.sha256" % ("0" * 64), "fold-0/last.h5.tmp",
                     "fold-1/best.h5.tmp", "fold-1/best.h5.%s.sha256.tmp" % ("1" * 64), "fold-1/metrics.jsonl.tmp"]:
            shutil.copy(os.path.join(out, "fold-0", "last.h5"), os.path.join(out, left))
        open(os.path.join(out, "report.html.00c0ffee.tmp"), "w").close()
        open(os.path.join(out, "thesis.tmp"), "w").close()
        run("train", **dict(options, output_dir=out))
        self.assertEqual([sorted(os.listdir(os.path.join(out, "fold-%d" % fold))) for fold in range(2)], names)
        self.assertEqual([name for name in os.listdir(out) if name.endswith(".tmp")], ["thesis.tmp"])

    def test_damaged_checkpoint_falls_back(self):
        """A bit that has flipped, and a file that was cut short: the checkpoint before it is taken."""

        def flip(f, size):
            f.seek(size // 2)
            byte = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([byte[0] ^ 16]))

        for what, damage in [("a bit flipped", flip), ("cut short", lambda f, size: f.truncate(size * 2 // 3))]:
            out = self.path(what)
            process = start("train", **dict(LONG, output_dir=out))
            wait_for_step(process, out, 20)
            kill_all(process, out)
            reached, last = steps_done(out), os.path.join(out, "fold-0", "last.h5")
            with open(last, "r+b") as f:
                damage(f, os.path.getsize(last))
            done = run("train", **dict(LONG, output_dir=out))
            self.assertIn("last.h5", done.stderr)
            self.assertSameAsWhole(out, 1)
            (kept,) = re.findall(r"fold 0 continues after step (\d+)", done.stderr)
            self.assertGreaterEqual(int(kept), reached - 2 * LONG["save_steps"])
            print("last.h5, %s: killed at step %d, went on from step %s" % (what, reached, kept))


if __name__ == "__main__":
    unittest.main(verbosity=2)
