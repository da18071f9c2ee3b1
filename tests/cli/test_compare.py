"""Runs side by side: compare, against numpy-free arithmetic of the tables on disk; and seeds."""

import math
import random
import unittest

from program import *

RUN = dict(TINY, train_folds="all", max_eval_samples=1000)


def tables(path):
    return {r["text_id"]: r for r in rows(os.path.join(path, "oof.csv"))}


def mcrmse(table, ids):
    return sum(math.sqrt(sum((float(table[i][t]) - float(table[i]["pred_" + t])) ** 2 for i in ids) / len(ids)) for t in TARGETS) / len(TARGETS)


class Compare(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = tempfile.mkdtemp(prefix="fb3-compare-")
        cls.a, cls.b = os.path.join(cls.root, "a"), os.path.join(cls.root, "b")
        run("train", **dict(RUN, output_dir=cls.a))
        run("train", **dict(RUN, output_dir=cls.b, learning_rate=1e-5, loss_type="mse"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.root)
        super().tearDownClass()

    def test_json(self):
        told = json.loads(run("compare", self.a, self.b, "--json").stdout)
        a, b = tables(self.a), tables(self.b)
        ids = sorted(set(a) & set(b))
        self.assertEqual(told["essays"], len(ids))
        for entry, table in zip(told["runs"], (a, b)):
            self.assertAlmostEqual(entry["MCRMSE"], mcrmse(table, ids), places=6)
        difference = told["differences"][0]
        self.assertAlmostEqual(difference["MCRMSE"], mcrmse(b, ids) - mcrmse(a, ids), places=6)
        self.assertEqual(difference["verdict"], "worse")  # it has hardly learned
        self.assertEqual(set(told["keys"]), {"learning_rate", "loss_type", "output_dir"})
        self.assertEqual(told["keys"]["learning_rate"], ["0.001", "1e-05"])

    def test_interval(self):
        """The same interval from resamples of our own, within the error of resampling."""
        told = json.loads(run("compare", self.a, self.b, "--json").stdout)["differences"][0]
        a, b = tables(self.a), tables(self.b)
        ids, chance = sorted(set(a) & set(b)), random.Random(7)
        drawn = sorted(mcrmse(b, some) - mcrmse(a, some) for some in (chance.choices(ids, k=len(ids)) for _ in range(300)))
        width = told["high"] - told["low"]
        self.assertLess(abs(drawn[7] - told["low"]), 0.25 * width)
        self.assertLess(abs(drawn[292] - told["high"]), 0.25 * width)

    def test_text(self):
        done = run("compare", self.a, self.b)
        self.assertRegex(done.stdout, r"(?m)^learning_rate +0.001 +1e-05$")
        self.assertNotRegex(done.stdout, "output_dir|num_train_epochs")
        self.assertEqual(done.stdout.split("\n")[0].split(), ["..." + self.a[-13:], "..." + self.b[-13:]])
        self.assertRegex(done.stdout, r"(?m)^.*/b beside .*/a: \+[0-9.]+, 95 % interval \+[0-9.]+ to \+[0-9.]+: worse$")
        same = run("compare", self.a, self.a).stdout
        self.assertIn("cannot tell (other essays could turn it round)", same)

    def test_refused(self):
        for words, text in [([self.a], "compare"), ([self.a, self.path("nowhere")], "no run.yaml"), ([self.a, SAMPLE], "no run.yaml")]:
            done = run("compare", *words, code=2)
            self.assertRegex(self.assertOneLine(done), text)
        other = self.path("other")
        run("train", **dict(RUN, output_dir=other, label_columns="syntax,grammar"))
        self.assertIn("other label columns", self.assertOneLine(run("compare", self.a, other, code=2)))

    def test_seeds(self):
        """A run of seeds is runs of each seed, with their mean and spread; it goes on where it was left."""
        several, alone = self.path("several"), self.path("alone")
        done = run("train", ranks=2, **dict(RUN, output_dir=several, seeds="3,4,5"))
        run("train", ranks=2, **dict(RUN, output_dir=alone, seed=4))
        for fold in range(2):
            self.assertEqual(losses(os.path.join(several, "seed-4"), fold), losses(alone, fold))
        pooled = [summary(os.path.join(several, "seed-%d" % s))["pooled"]["MCRMSE"] for s in (3, 4, 5)]
        mean = sum(pooled) / 3
        spread = math.sqrt(sum((x - mean) ** 2 for x in pooled) / 2)
        told = summary(several)
        self.assertEqual([s["seed"] for s in told["seeds"]], [3, 4, 5])
        self.assertAlmostEqual(told["mean"]["MCRMSE"], mean, places=7)
        self.assertAlmostEqual(told["spread"]["MCRMSE"], spread, places=7)
        self.assertRegex(done.stdout, r"(?m)^mean +[0-9]+ +%.4f" % mean)
        before = {s: os.stat(os.path.join(several, "seed-%d" % s, "fold-0", "last.h5")).st_mtime_ns for s in (3, 4, 5)}
        again = run("train", ranks=2, **dict(RUN, output_dir=several, seeds="3,4,5"))
        self.assertRegex(again.stderr, "fold 0 is complete already")
        self.assertEqual(before, {s: os.stat(os.path.join(several, "seed-%d" % s, "fold-0", "last.h5")).st_mtime_ns for s in (3, 4, 5)})
        compared = json.loads(run("compare", several, self.a, "--json").stdout)
        self.assertEqual([r["tables"] for r in compared["runs"]], [3, 1])
        self.assertAlmostEqual(compared["runs"][0]["spread"], spread, places=7)
        refused = run("train", code=2, **dict(RUN, output_dir=self.a, seeds="3,4"))
        self.assertIn("holds a run of its own", self.assertOneLine(refused))
        self.assertIn("twice", self.assertOneLine(run("train", code=2, **dict(RUN, output_dir=self.path("x"), seeds="3,3"))))

    def test_verbs_take_a_run_of_seeds(self):
        """Its runs are those of the seeds, by number; what is no run is passed over."""
        several, cwd = self.path("several"), self.path("cwd")
        os.mkdir(cwd)
        run("train", **dict(RUN, output_dir=several, seeds="10,9"))
        os.mkdir(os.path.join(several, "seed-8"))
        os.mkdir(os.path.join(several, "seed-9-old"))
        runs = [os.path.join(several, "seed-9"), os.path.join(several, "seed-10")]
        folds = [os.path.join(r, "fold-%d" % k) for r in runs for k in range(2)]
        told = run("evaluate", several).stdout
        self.assertEqual(told, "\n".join("%s\n%s" % (r, run("evaluate", r).stdout) for r in runs))
        self.assertEqual(run("inspect", several).stdout, "".join(run("inspect", r).stdout for r in runs))
        self.assertEqual([r["run"] for r in json.loads(run("status", several, "--json").stdout)["runs"]], runs)
        run("report", several, output="both.html", cwd=cwd)
        run("report", *runs, output="each.html", cwd=cwd)
        with open(os.path.join(cwd, "both.html")) as both, open(os.path.join(cwd, "each.html")) as each:
            self.assertEqual(both.read(), each.read())
        run("predict", several, test_file=TEST, cwd=cwd, output_file="both.csv")
        run("predict", *folds, test_file=TEST, cwd=cwd, output_file="each.csv")
        self.assertEqual(rows(os.path.join(cwd, "both.csv")), rows(os.path.join(cwd, "each.csv")))
        run("export", several + "/", output=self.path("models"))
        for fold in folds:
            self.assertTrue(os.path.exists(fold.replace(several, self.path("models")) + "/model.safetensors"), fold)
        nothing = self.path("several", "seed-8")
        for verb, options in [("evaluate", {}), ("inspect", {}), ("report", {}), ("status", {}), ("predict", {"test_file": TEST}),
                              ("export", {"output": self.path("nothing")})]:
            self.assertIn("seed-8", self.assertOneLine(run(verb, nothing, code=2, cwd=cwd, **options)))

    def test_seeds_are_stopped_and_go_on(self):
        out, options = self.path("stopped"), dict(RUN, max_steps=40, max_eval_samples=16, seeds="1,2", train_folds="0")
        process = start("train", **dict(options, output_dir=out))
        second = os.path.join(out, "seed-2")
        end = time.time() + 100
        while steps_done(second) < 2 and time.time() < end and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, errors)
        self.assertFalse(os.path.exists(os.path.join(out, "summary.json")))
        run("train", **dict(options, output_dir=out))
        self.assertEqual(len(summary(out)["seeds"]), 2)
        whole = self.path("whole")
        run("train", **dict(options, output_dir=whole, seeds="2"))
        self.assertEqual(losses(second), losses(os.path.join(whole, "seed-2")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
