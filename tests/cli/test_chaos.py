"""Kills of one rank or of all, at random and at the worst moments: while a checkpoint is written, while folds change. Each
next start is on another number of ranks and groups. In the end the run has the very bits of one that was never stopped
(reproducible: true).

FB3_CHAOS_KILLS: how many at random; FB3_CHAOS_ROUNDS: how many runs with a kill at each of the moments (tests/soak: 100 of
either kind)."""

import os
import random
import signal
import time
import unittest

from program import *

KILLS = int(os.environ.get("FB3_CHAOS_KILLS", 8))
ROUNDS = int(os.environ.get("FB3_CHAOS_ROUNDS", 1))
FOLDS = 3
RUN = dict(TINY, reproducible=True, folds=FOLDS, train_folds="all", max_steps=10 + 6 * KILLS, max_train_samples=40, save_strategy="steps",
           save_steps=2, eval_strategy="steps", eval_steps=10, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
           per_device_eval_batch_size=8)
# Each evaluation is the best so far, as the test of the moments checks: every second step writes best.h5 and last.h5.
AIMED = dict(RUN, max_steps=30, eval_steps=2, learning_rate=2e-4)


def all_steps_done(out):
    return sum(steps_done(out, fold) for fold in range(FOLDS))


def file_names(out, fold):
    return sorted(n for n in os.listdir(os.path.join(out, "fold-%d" % fold)) if not n.endswith(".sha256"))


# --- the moments: each says whether the directory is in it, while the run lives and after its death. What an earlier start
# left does not count: a change of its inode `since` then does. ------------------------------------------------------

def fold_file(out, fold, name):
    return os.path.join(out, "fold-%d" % fold, name)


def changed(path, since):
    try:
        return os.stat(path).st_ctime > since
    except OSError:
        return False


def made(name):
    return lambda out, fold, since: changed(fold_file(out, fold, name), since)


def best_is_ahead(out, fold, since):
    """best.h5 is there, and last.h5 of the same step, which is written after it, is not."""
    best, last = (fold_file(out, fold, name) for name in ("best.h5", "last.h5"))
    return changed(best, since) and os.path.exists(last) and os.stat(best).st_mtime_ns > os.stat(last).st_mtime_ns


def has_ended(out, fold, since):
    try:
        return changed(fold_file(out, fold, "metrics.jsonl"), since) and bool(events(out, fold, "end"))
    except ValueError:  # a line that is being written
        return False


def between_folds(out, fold, since):
    """The fold has said its last word, and nothing of the next one, or of the scores of all, is there."""
    return has_ended(out, fold, since) and steps_done(out, fold + 1) == 0 and not os.path.exists(
        os.path.join(out, "summary.json"))


WRITING = {
    "best.h5 half written": made("best.h5.tmp"),
    "best.h5 ahead of last.h5": best_is_ahead,
    "last.h5 half written": made("last.h5.tmp"),
    "previous.h5 half made": made("previous.h5.tmp"),
}
CHANGE = "between two folds (or the last one and the scores)"
MOMENTS = dict(WRITING, **{CHANGE: between_folds})


@unittest.skipIf(SANITIZED, "too slow with sanitizers")
class Chaos(ProgramTest):
    def assertSameRun(self, out, whole):
        """The same bits, and nothing left over."""
        for fold in range(FOLDS):
            self.assertEqual(fold_bits(out, fold), fold_bits(whole, fold))
            self.assertEqual(file_names(out, fold), file_names(whole, fold))
        self.assertEqual(rows(os.path.join(out, "oof.csv")), rows(os.path.join(whole, "oof.csv")))

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
        self.assertSameRun(out, whole)
        print("%d kills, %d of them of one rank; 3 folds of %d steps: the same bits" % (killed, alone, RUN["max_steps"]))

    # --- at the worst moments ---

    def kill_at(self, moment, fold, out, chance, late):
        """A start that is killed up to `late` seconds after the fold has come to that moment. Whether what it left shows
        that it was in it."""
        ranks, only_writer = chance.choice([1, 2, 3, 4]), chance.random() < 0.5
        goal, began = all_steps_done(out) + chance.randrange(0, 5), time.time()
        process = start("train", ranks=ranks, fold_groups=1, **dict(AIMED, output_dir=out))

        def wait_for(condition, pause):
            while not condition() and process.poll() is None and steps_done(out, fold + 1) == 0:
                time.sleep(pause)

        wait_for(lambda: changed(fold_file(out, fold, "metrics.jsonl"), began), 0.005)
        self.continued.append(time.time() - began)
        pids = pids_of(out)
        writer = pid_of_rank(out, 0)
        wait_for(lambda: all_steps_done(out) >= goal or has_ended(out, fold, began), 0.001)
        wait_for(lambda: moment(out, fold, began), 0.0002)
        time.sleep(late * chance.random())
        for pid in [writer] if only_writer else [writer] + pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if only_writer:
            process.communicate(timeout=60)  # the launcher ends the others
        else:
            kill_all(process, out)
        self.alone += only_writer and ranks > 1
        return moment(out, fold, began)

    def assertHits(self, moment, fold, out, chance):
        """A shot that misses is taken back: the directory is put as it was before."""
        before, late = self.path("before"), 0.02
        os.makedirs(out, exist_ok=True)
        for _ in range(20):
            shutil.rmtree(before, ignore_errors=True)
            shutil.copytree(out, before)
            if self.kill_at(MOMENTS[moment], fold, out, chance, late):
                return
            self.missed, late = self.missed + 1, late / 2
            shutil.rmtree(out)
            os.rename(before, out)
        self.fail("20 kills, and none when it was wanted: fold %d, %s" % (fold, moment))

    def test_at_the_worst_moments(self):
        whole = self.path("whole")
        run("train", timeout=1800, **dict(AIMED, output_dir=whole))
        for fold in range(FOLDS):
            self.assertEqual(len([e for e in events(whole, fold, "checkpoint") if e["best"]]), AIMED["max_steps"] // 2)
        chance = random.Random(21)
        self.missed, self.alone, self.continued, hits = 0, 0, [], 0
        for turn in range(ROUNDS):
            out = self.path("killed-%d" % turn)
            for fold in range(FOLDS):
                for moment in chance.sample(list(WRITING), len(WRITING)) + [CHANGE]:
                    self.assertHits(moment, fold, out, chance)
                    hits += 1
            run("train", ranks=chance.choice([1, 2, 3, 4]), timeout=1800, **dict(AIMED, output_dir=out))
            self.assertSameRun(out, whole)
            shutil.rmtree(out)
        each = FOLDS * ROUNDS
        print("%d kills, %d of each: %s; %d of them of the writing rank alone, %d more missed; %.1f s from a start to its "
              "first step (median): the same bits" % (hits, each, ", ".join(MOMENTS), self.alone, self.missed,
                                                    sorted(self.continued)[len(self.continued) // 2]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
