"""What TensorBoard itself reads from a run with report_to: tensorboard. FB3_ORACLE_TENSORBOARD names a Python with the
package (tests/track/oracles.txt has the version); skipped by name without it."""

import json
import os
import subprocess
import sys
import time
import unittest

from program import *
from test_tensorboard import event_files

ORACLE = os.environ.get("FB3_ORACLE_TENSORBOARD")

READ = """
import json, sys
from tensorboard.backend.event_processing import event_multiplexer
from tensorboard.util import tensor_util
runs = event_multiplexer.EventMultiplexer(size_guidance={"scalars": 0, "tensors": 0}).AddRunsFromDirectory(sys.argv[1])
runs.Reload()
out = {}
for run in runs.Runs():
    tags = runs.GetAccumulator(run).Tags()
    out[run] = {"scalars": {t: [[e.step, e.value, e.wall_time] for e in runs.Scalars(run, t)] for t in tags["scalars"]},
                "texts": {t: [[e.step, tensor_util.make_ndarray(e.tensor_proto)[0].decode()] for e in runs.Tensors(run, t)]
                          for t in tags["tensors"]}}
json.dump(out, sys.stdout)
"""


def tensorboard(folder):
    """run -> {"scalars": tag -> [step, value, time], "texts": tag -> [step, text]}"""
    done = subprocess.run([ORACLE, "-c", READ, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Readers(ProgramTest):
    def assertLogged(self, scalars, folder, fold):
        steps = events(folder, fold, "step")
        for tag, key in [("loss", "loss"), ("grad_norm", "grad_norm"), ("learning_rate", "learning_rate"), ("epoch", "epoch")]:
            got = scalars["train/" + tag]
            self.assertEqual([s for s, _, _ in got], [e["step"] for e in steps], tag)
            for (_, value, _), e in zip(got, steps):
                self.assertAlmostEqual(value, e[key], delta=1e-6 * abs(e[key]))
        for key in ["loss", "MCRMSE"] + [t.upper() + "_RMSE" for t in TARGETS]:
            got, told = scalars["eval/" + key], events(folder, fold, "eval")
            self.assertEqual([s for s, _, _ in got], [e["step"] for e in told], key)
            for (_, value, _), e in zip(got, told):
                self.assertAlmostEqual(value, e["eval_" + key], delta=1e-6)

    def test_what_it_reads(self):
        out = self.path("runs", "first")
        began = time.time()
        run("train", **dict(TINY, train_folds="all", max_steps=-1, num_train_epochs=2, output_dir=out,
                            report_to="tensorboard"))
        read = tensorboard(self.path("runs"))
        self.assertEqual(sorted(read), ["first/fold-0", "first/fold-1"])
        for fold in range(2):
            one = read["first/fold-%d" % fold]
            self.assertLogged(one["scalars"], out, fold)
            [[step, text]] = one["texts"]["args/text_summary"]
            with open(self.path("runs", "first", "run.yaml")) as f:
                self.assertEqual(text, "".join("    " + line for line in f))
            for curve in one["scalars"].values():
                self.assertTrue(all(began - 1 < when < time.time() + 1 for _, _, when in curve))
            self.assertIn("train/train_runtime", one["scalars"])

    def test_stopped_and_continued(self):
        out = self.path("run")
        options = dict(TINY, max_steps=40, output_dir=out, report_to="tensorboard", eval_strategy="steps", eval_steps=10,
                       save_strategy="steps", save_steps=10)
        process = start("train", **options)
        while steps_done(out) < 15:
            time.sleep(0.02)
        kill_all(process, out)  # the steps after the last checkpoint are done again
        run("train", **options)
        self.assertEqual(len(event_files(out)), 2)
        read = tensorboard(self.path())["run/fold-0"]
        self.assertLogged(read["scalars"], out, 0)
        self.assertEqual([s for s, _, _ in read["scalars"]["train/loss"]], list(range(1, 41)))

    def test_killed_before_the_first_checkpoint(self):
        out = self.path("run")
        options = dict(TINY, max_steps=30, output_dir=out, report_to="tensorboard", save_strategy="no", eval_strategy="no")
        process = start("train", **options)
        while steps_done(out) < 5:
            time.sleep(0.02)
        kill_all(process, out)
        run("train", **options)
        read = tensorboard(self.path())["run/fold-0"]
        self.assertEqual([s for s, _, _ in read["scalars"]["train/loss"]], list(range(1, 31)))
        self.assertEqual(len(read["texts"]["args/text_summary"]), 1)


if __name__ == "__main__":
    if not ORACLE:
        print("skipped: FB3_ORACLE_TENSORBOARD is not set")
        sys.exit(77)
    unittest.main()
