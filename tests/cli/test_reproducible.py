"""reproducible: true: the same bits on any number of ranks and threads, at one global batch."""

import os
import unittest

from program import *

LEAVES = dict(TINY, reproducible=True, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, head_dropout=0.2,
              max_steps=5, max_train_samples=43, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=5,
              total_train_batch_size=20, per_device_train_batch_size=8)


def bits(out, fold=0):
    """All that a run leaves which depends on arithmetic."""
    folder = os.path.join(out, "fold-%d" % fold)
    return {"losses": losses(out, fold), "norms": [e["grad_norm"] for e in events(out, fold, "step")],
            "scores": [e["eval_MCRMSE"] for e in events(out, fold, "eval")],
            "best": weights_digest(os.path.join(folder, "best.h5")), "last": weights_digest(os.path.join(folder, "last.h5")),
            "oof": rows(os.path.join(folder, "oof.csv"))}


class Reproducible(ProgramTest):
    def train(self, name, ranks=None, env=None, **options):
        out = self.path(name)
        run("train", ranks=ranks, env=env, **dict(LEAVES, output_dir=out, **options))
        return bits(out)

    def test_any_number_of_ranks(self):
        for loss in ["mcrmse"] if SANITIZED else ["rmse", "mcrmse"]:
            alone = self.train(loss + "-1", loss_type=loss)
            for ranks in [3] if SANITIZED else [2, 3, 4, 8]:
                self.assertEqual(self.train("%s-%d" % (loss, ranks), ranks=ranks, loss_type=loss), alone, ranks)

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_it_is_the_sum_that_matters(self):
        """Without it the bits differ: or this test would not see it."""
        one = self.train("one", reproducible=False)
        two = self.train("two", ranks=2, reproducible=False)
        self.assertNotEqual(one["last"], two["last"])
        self.assertLess(abs(one["losses"][-1] / self.train("fixed")["losses"][-1] - 1), 1e-3)

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_threads_groups_and_the_size_of_a_rank_s_batch(self):
        alone = self.train("alone")
        for threads in ["1", "3"]:
            self.assertEqual(self.train("threads-" + threads, env=environment(OMP_NUM_THREADS=threads), bind="keep"), alone)
        self.assertEqual(self.train("small", ranks=2, per_device_train_batch_size=3), alone)
        out = self.path("groups")
        run("train", ranks=4, **dict(LEAVES, fold_groups=2, train_folds="all", output_dir=out))
        self.assertEqual(bits(out), alone)

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_other_leaves_are_another_run(self):
        self.assertNotEqual(self.train("four", reproducible_leaves=4)["last"], self.train("eight")["last"])

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_resumed_on_other_ranks(self):
        """Stopped on three ranks, killed on two, ended on one: the bits of a run that never stopped."""
        long = dict(max_steps=40, save_strategy="steps", save_steps=5, eval_steps=10)
        whole = self.train("whole", **long)
        out = self.path("parts")
        for ranks, number in [(3, signal.SIGUSR1), (2, signal.SIGKILL)]:
            process = start("train", ranks=ranks, **dict(LEAVES, output_dir=out, **long))
            seen = steps_done(out)
            while steps_done(out) < seen + 7 and process.poll() is None:
                time.sleep(0.02)
            self.assertIsNone(process.poll(), "it ended too early")
            if number == signal.SIGKILL:
                kill_all(process, out)
            else:
                process.send_signal(number)
                process.communicate(timeout=60)
        self.assertEqual(self.train("parts", **long), whole)

    def test_what_does_not_fit(self):
        for options, ranks, word in [(dict(reproducible_leaves=2), 3, "reproducible_leaves: 3"),
                                     (dict(per_device_train_batch_size=2), None, "reproducible_leaves: 10")]:
            done = run("train", ranks=ranks, code=2, **dict(LEAVES, output_dir=self.path("refused"), **options))
            self.assertIn(word, done.stderr)
            self.assertFalse(os.path.exists(self.path("refused", "run.yaml")))

    def test_overflow_is_a_step_that_is_skipped(self):
        """A gradient beyond fixed point is skipped on every rank, as one that is not finite."""
        table, huge = rows(TRAIN), self.path("huge.csv")
        with open(huge, "w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, table[0].keys())
            writer.writeheader()
            writer.writerows(dict(row, grammar="1e12") for row in table)
        done = run("train", ranks=2, code=None, **dict(LEAVES, output_dir=self.path("run"), train_file=huge, loss_type="mse",
                                                       max_nonfinite_steps=2, max_steps=8))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("not finite in 3 steps in a row", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
