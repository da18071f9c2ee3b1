"""Checkpoints of a CUDA device, emulated or real: training goes on while they are copied and written, and they hold the
bits of their own step all the same; stopped, killed, without room, and when the file cannot be written."""

import os
import random
import signal
import sys
import time
import unittest

from program import *

DEVICES = cuda_devices()
EMULATED = any("emulated" in line for line in DEVICES)

# weight_decay: the word rows that are not trained move too, and are replayed into every checkpoint
LONG = dict(TINY, per_device_train_batch_size=4, total_train_batch_size=8, max_steps=9, hidden_dropout_prob=0.1,
            weight_decay=0.3, save_strategy="steps", save_steps=2, save_total_limit=10, eval_strategy="no", device="cuda")


def on_devices(count=1, **extra):
    return environment(CUDAEMU_DEVICES=str(count), **extra)


class Checkpoints(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="fb3-cuda-checkpoints-")
        cls.whole = os.path.join(cls.shared, "whole")
        run("train", env=on_devices(), **dict(LONG, output_dir=cls.whole))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared)

    def train(self, name, ranks=None, env=None, code=0, **options):
        out = self.path(name)
        self.done = run("train", ranks=ranks, env=env or on_devices(), code=code,
                        **dict(LONG, output_dir=out, **options))
        return out

    def digest(self, out, name="last.h5"):
        return weights_digest(os.path.join(out, "fold-0", name))

    def assertSameAsWhole(self, out):
        self.assertEqual(losses(out), losses(self.whole))
        self.assertEqual(self.digest(out), self.digest(self.whole))

    def start_and_wait(self, out, step, env=None):
        process = start("train", env=env or on_devices(), **dict(LONG, output_dir=out))
        limit = time.time() + 90
        while steps_done(out) < step and process.poll() is None and time.time() < limit:
            time.sleep(0.005)
        return process


class WhileTrainingGoesOn(Checkpoints):
    def test_training_goes_on(self):
        order = [(e["event"], e["step"]) for e in events(self.whole) if e["event"] in ["step", "checkpoint"]]
        for step in [2, 4, 6]:
            self.assertGreater(order.index(("checkpoint", step)), order.index(("step", step + 1)))
            self.assertLess(order.index(("checkpoint", step)), order.index(("step", step + 3)))

    def test_every_one_is_of_its_own_step(self):
        """Continued from each, the run ends with the same bits: weights, moments and progress are those of the step."""
        for step in [2, 4, 6, 8]:
            name = "checkpoint-%d.h5" % step
            out = self.train("from-%d" % step, resume=os.path.join(self.whole, "fold-0", name))
            self.assertEqual([e["step"] for e in events(out, 0, "step")], list(range(step + 1, 10)))
            self.assertEqual(losses(out), losses(self.whole)[step:])
            self.assertEqual(self.digest(out), self.digest(self.whole))

    @unittest.skipUnless(EMULATED, "a device with little memory: the emulated build")
    def test_no_room_on_the_device(self):
        """Without room for a copy of the arenas the checkpoints are the same."""
        out = self.train("small", env=on_devices(CUDAEMU_MEMORY=str(800 << 20)))
        self.assertSameAsWhole(out)
        for step in [2, 6]:
            name = "checkpoint-%d.h5" % step
            self.assertEqual(self.digest(out, name), self.digest(self.whole, name))

    def test_two_ranks(self):
        if len(DEVICES) < 2 and not EMULATED:
            self.skipTest("one device")
        out = self.train("two", ranks=2, env=on_devices(2))
        name = os.path.join(out, "fold-0", "checkpoint-4.h5")
        again = self.train("again", ranks=2, env=on_devices(2), resume=name)
        self.assertEqual(losses(again), losses(out)[4:])
        self.assertEqual(self.digest(again), self.digest(out))

    def test_best_and_last_of_one_step(self):
        out = self.train("both", eval_strategy="steps", eval_steps=2, save_total_limit=3, save_initial=True)
        saved = [(e["step"], e["path"]) for e in events(out, 0, "checkpoint")]
        best = [e["step"] for e in events(out, 0, "checkpoint") if e["best"]]
        wanted = [(0, "initial.h5")]
        for step in [2, 4, 6, 8]:
            wanted += [(step, "best.h5")] * (step in best) + [(step, "last.h5")]
        wanted += [(9, "best.h5")] * (9 in best) + [(9, "last.h5")]
        self.assertEqual(saved, wanted)
        self.assertGreater(len(best), 0)
        kept = sorted(n for n in os.listdir(os.path.join(out, "fold-0")) if n.endswith(".h5"))
        self.assertEqual(kept, ["best.h5", "checkpoint-4.h5", "checkpoint-6.h5", "checkpoint-8.h5", "initial.h5", "last.h5"])
        if best[-1] in [4, 6, 8]:
            self.assertEqual(self.digest(out, "best.h5"), self.digest(out, "checkpoint-%d.h5" % best[-1]))


class Interrupted(Checkpoints):
    def test_stopped(self):
        for step in [1, 3, 4]:
            out = self.path("stopped-%d" % step)
            process = self.start_and_wait(out, step)
            process.send_signal(signal.SIGTERM)
            _, text = process.communicate(timeout=90)
            if process.returncode == 0:
                continue  # it was over before the signal came
            self.assertEqual(process.returncode, 75, text)
            self.assertIn("complete checkpoint", text)
            self.assertEqual(events(out, 0, "checkpoint")[-1]["step"], steps_done(out))
            run("train", env=on_devices(), **dict(LONG, output_dir=out))
            self.assertSameAsWhole(out)

    def test_killed_again_and_again(self):
        out, chance, kills = self.path("killed"), random.Random(3), 0
        while kills < 8 and steps_done(out) < 9:
            process = self.start_and_wait(out, min(steps_done(out) + chance.randrange(1, 4), 9))
            time.sleep(chance.random() * 0.1)
            if process.poll() is None:
                kill_all(process, out)
                kills += 1
        self.assertGreater(kills, 1)
        run("train", env=on_devices(), **dict(LONG, output_dir=out))
        self.assertSameAsWhole(out)


class CannotWrite(Checkpoints):
    """The place of the temporary file is taken by a folder: the file cannot be made, as on a full disk."""

    def block(self, name):
        out = self.path(name)
        os.makedirs(os.path.join(out, "fold-0", "last.h5.tmp"))
        return out

    def line(self, name, ranks=None, **options):
        out = self.block(name)
        done = run("train", code=1, ranks=ranks, env=on_devices(2), **dict(LONG, output_dir=out, **options))
        return [l.replace(out, "OUT") for l in done.stderr.splitlines() if "last.h5.tmp" in l][-1]

    def test_the_same_words_as_on_the_processor(self):
        self.assertEqual(self.line("cuda"), self.line("cpu", device="cpu"))

    def test_two_ranks(self):
        if len(DEVICES) < 2 and not EMULATED:
            self.skipTest("one device")
        self.assertRegex(self.line("two", ranks=2), "cannot create OUT/fold-0/last.h5.tmp")

    def test_found_out_at_the_stop(self):
        out = self.block("stop")
        process = start("train", env=on_devices(), **dict(LONG, save_steps=8, output_dir=out))
        limit = time.time() + 90
        while steps_done(out) < 1 and process.poll() is None and time.time() < limit:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=90)
        self.assertEqual(process.returncode, 1, text)
        self.assertIn("last.h5.tmp", text)


if __name__ == "__main__":
    if not DEVICES:
        print("skipped: no CUDA device answers fb3-dist doctor")
        sys.exit(77)
    unittest.main(verbosity=2)
