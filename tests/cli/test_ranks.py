"""One global batch, however it is split: ranks, accumulation and threads."""

import os
import unittest

from program import *

CURVE = dict(TINY, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, head_dropout=0.2, max_steps=6)


class Split(ProgramTest):
    def curve(self, name, ranks=None, **options):
        out = self.path(name)
        run("train", ranks=ranks, **dict(CURVE, output_dir=out, **options))
        return losses(out), [e["grad_norm"] for e in events(out, 0, "step")], \
            [e["eval_MCRMSE"] for e in events(out, 0, "eval")]

    def assertSameCurve(self, a, b):
        for x, y in zip(a, b):
            self.assertEqual(len(x), len(y))
            for u, v in zip(x, y):
                self.assertLess(abs(u - v) / abs(u), 1e-4)

    def test_ranks_and_accumulation(self):
        for loss in ["rmse", "mcrmse"]:
            whole = self.curve(loss + "-1", loss_type=loss, per_device_train_batch_size=16)
            self.assertSameCurve(whole, self.curve(loss + "-accumulated", loss_type=loss, per_device_train_batch_size=3))
            self.assertSameCurve(whole, self.curve(loss + "-2", ranks=2, loss_type=loss))
            self.assertSameCurve(whole, self.curve(loss + "-4", ranks=4, loss_type=loss, per_device_train_batch_size=2))

    def test_batch_smaller_than_the_world(self):
        small = dict(total_train_batch_size=2, per_device_train_batch_size=2)
        self.assertSameCurve(self.curve("one", **small), self.curve("four", ranks=4, **small))

    def test_short_last_batch(self):
        ragged = dict(max_train_samples=41, num_train_epochs=2, max_steps=-1)
        one = self.curve("one", **ragged)
        self.assertEqual(len(one[0]), 6)  # 16 + 16 + 9, twice
        self.assertSameCurve(one, self.curve("three", ranks=3, **ragged))

    def test_threads_do_not_change_bits(self):
        digests = []
        for threads in ["1", "2", "3"]:
            out = self.path("threads-" + threads)
            run("train", env=environment(OMP_NUM_THREADS=threads), **dict(CURVE, bind="keep", output_dir=out))
            digests.append((losses(out), weights_digest(os.path.join(out, "fold-0", "best.h5"))))
        self.assertEqual(digests[0], digests[1])
        self.assertEqual(digests[0], digests[2])

    def test_same_run_twice_same_bits(self):
        digests = []
        for name in ["a", "b"]:
            run("train", ranks=2, **dict(CURVE, output_dir=self.path(name)))
            digests.append((losses(self.path(name)), weights_digest(self.path(name, "fold-0", "best.h5"))))
        self.assertEqual(digests[0], digests[1])

    def test_predict_over_ranks(self):
        run("train", **dict(TINY, output_dir=self.path("run")))
        tables = []
        for ranks in [None, 3]:
            out = self.path("submission-%s.csv" % ranks)
            run("predict", self.path("run"), ranks=ranks, test_file=TEST, output_file=out)
            tables.append(rows(out))
        for a, b in zip(*tables):
            for t in TARGETS:
                self.assertAlmostEqual(float(a[t]), float(b[t]), delta=1e-5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
