"""Kills at random: of one rank or of all, while training, writing a checkpoint, changing folds; each next start on another
number of ranks and groups. In the end the run has the very bits of one that was never stopped (reproducible: true).

FB3_CHAOS_KILLS: how many (tests/soak/chaos: 100)."""

import os
import random
import signal
import time
import unittest

from program import *

KILLS = int(os.environ.get("FB3_CHAOS_KILLS", 8))
RUN = dict(TINY, reproducible=True, folds=3, train_folds="all", max_steps=10 + 6 * KILLS, max_train_samples=40, save_strategy="steps",
           save_steps=2, eval_strategy="steps", eval_steps=10, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
           per_device_eval_batch_size=8)


def fold_bits(out, fold):
    folder = os.path.join(out, "fold-%d" % fold)
    return (losses(out, fold), [e["eval_MCRMSE"] for e in events(out, fold, "eval")],
            weights_digest(os.path.join(folder, "best.h5")), weights_digest(os.path.join(folder, "last.h5")))


def all_steps_done(out):
    return sum(steps_done(out, fold) for fold in range(3))


@unittest.skipIf(SANITIZED, "too slow with sanitizers")
class Chaos(ProgramTest):
    def test_same_bits_after_all(self):
        whole, out = self.path("whole"), self.path("killed")
        run("train", timeout=1800, **dict(RUN, output_dir=whole))
        chance, killed, alone = random.Random(20), 0, 0
        while killed < KILLS:
            ranks = chance.choice([1, 2, 3, 4])
            groups = chance.choice([g for g in (1, 2) if ranks % g == 0])
            process = start("train", ranks=ranks, fold_groups=groups, **dict(RUN, output_dir=out))
            begun, wanted, end = all_steps_done(out), chance.randrange(1, 12), time.time() + 60
            while process.poll() is None and all_steps_done(out) < begun + wanted and time.time() < end:
                time.sleep(0.01)
            time.sleep(0.05 * chance.random())  # anywhere between two steps, and in a checkpoint
            if process.poll() is not None:
                break
            if chance.random() < 0.5 and pids_of(out):
                os.kill(chance.choice(pids_of(out)), signal.SIGKILL)  # the launcher ends the others
                process.communicate(timeout=60)
                alone += 1
            else:
                kill_all(process, out)
            killed += 1
        self.assertEqual(killed, KILLS, "it was complete before it had been killed often enough")
        run("train", ranks=2, timeout=1800, **dict(RUN, output_dir=out))
        for fold in range(3):
            self.assertEqual(fold_bits(out, fold), fold_bits(whole, fold))
        self.assertEqual(rows(os.path.join(out, "oof.csv")), rows(os.path.join(whole, "oof.csv")))
        print("%d kills, %d of them of one rank; 3 folds of %d steps: the same bits" % (killed, alone, RUN["max_steps"]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
