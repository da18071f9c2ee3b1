"""The main job on the sample: what a run leaves behind, and that its parts agree with each other."""

import math
import os
import unittest

from program import *


class Train(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="fb3-train-")
        cls.directory = os.path.join(cls.folder, "run")
        cls.output = run("train", **dict(TINY, folds=3, train_folds="all", max_steps=8, max_eval_samples=1000,
                                         num_train_epochs=2, log_samples=True, save_initial=True, output_dir=cls.directory))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def setUp(self):
        pass

    def test_files(self):
        for name in ["run.yaml", "folds.csv", "data.h5", "oof.csv", "summary.json"]:
            self.assertTrue(os.path.isfile(os.path.join(self.directory, name)), name)
        for fold in range(3):
            names = os.listdir(os.path.join(self.directory, "fold-%d" % fold))
            for name in ["metrics.jsonl", "best.h5", "last.h5", "initial.h5", "oof.csv"]:
                self.assertIn(name, names)
            self.assertNotIn("previous.h5", names)
            self.assertFalse([n for n in names if n.endswith(".tmp")], names)

    def test_out_of_fold_table(self):
        folds = {r["text_id"]: r["fold"] for r in rows(os.path.join(self.directory, "folds.csv"))}
        table = rows(os.path.join(self.directory, "oof.csv"))
        truth = {r["text_id"]: r for r in rows(TRAIN)}
        self.assertEqual([r["text_id"] for r in table], [r["text_id"] for r in rows(TRAIN)])
        for r in table:
            self.assertEqual(r["fold"], folds[r["text_id"]])
            for t in TARGETS:
                self.assertEqual(float(r[t]), float(truth[r["text_id"]][t]))
                self.assertTrue(math.isfinite(float(r["pred_" + t])))

    def test_summary_is_what_the_table_says(self):
        table = rows(os.path.join(self.directory, "oof.csv"))
        written = summary(self.directory)

        def scores(some):
            rmse = {t: math.sqrt(sum((float(r[t]) - float(r["pred_" + t])) ** 2 for r in some) / len(some))
                    for t in TARGETS}
            return rmse, sum(rmse.values()) / len(rmse)

        for name, some in [("pooled", table)] + [(k, [r for r in table if r["fold"] == str(k)]) for k in range(3)]:
            told = written["pooled"] if name == "pooled" else written["folds"][name]
            rmse, mcrmse = scores(some)
            self.assertAlmostEqual(told["MCRMSE"], mcrmse, places=7)
            for t in TARGETS:
                self.assertAlmostEqual(told[t.upper() + "_RMSE"], rmse[t], places=7)
        means = {t: [] for t in TARGETS}
        for r in table:
            others = [o for o in table if o["fold"] != r["fold"]]
            for t in TARGETS:
                mean = sum(float(o[t]) for o in others) / len(others)
                means[t].append((float(r[t]) - mean) ** 2)
        expected = sum(math.sqrt(sum(v) / len(v)) for v in means.values()) / len(TARGETS)
        self.assertAlmostEqual(written["mean_predictor"]["MCRMSE"], expected, places=6)
        for key in ["seconds", "samples_per_second", "ranks", "devices", "versions", "inputs"]:
            self.assertIn(key, written)

    def test_metrics(self):
        steps = events(self.directory, 1, "step")
        self.assertEqual([s["step"] for s in steps], list(range(1, 9)))
        self.assertEqual(steps[0]["learning_rate"], 0)  # the first warm-up step
        self.assertTrue(all(len(s["samples"]) == 16 for s in steps))
        epoch = sum((s["samples"] for s in steps[:4]), [])  # 64 samples in batches of 16
        self.assertEqual(len(set(epoch)), 64)
        self.assertEqual(set(epoch), set(sum((s["samples"] for s in steps[4:]), [])))
        self.assertNotEqual(epoch, sum((s["samples"] for s in steps[4:]), []))
        evaluations = events(self.directory, 1, "eval")
        self.assertEqual([e["step"] for e in evaluations], [4, 8])
        best = min(e["eval_MCRMSE"] for e in evaluations)
        (end,) = events(self.directory, 1, "end")
        self.assertAlmostEqual(end["best_metric"], best, places=8)
        self.assertEqual(events(self.directory, 1)[0]["event"], "run")

    def test_terminal(self):
        self.assertIn("mean predictor", self.output.stdout)
        self.assertIn("rank", self.output.stdout)
        self.assertNotIn("\r", self.output.stderr)  # plain lines when not a terminal

    def test_evaluate_recomputes(self):
        pooled = summary(self.directory)["pooled"]["MCRMSE"]
        self.assertIn("%.4f" % pooled, run("evaluate", self.directory).stdout)

    def test_second_start_has_nothing_to_do(self):
        before = weights_digest(os.path.join(self.directory, "fold-2", "best.h5"))
        done = run("train", **dict(TINY, folds=3, train_folds="all", max_steps=8, max_eval_samples=1000,
                                   num_train_epochs=2, log_samples=True, save_initial=True, output_dir=self.directory))
        self.assertEqual(done.stderr.count("is complete already"), 3)
        self.assertEqual(weights_digest(os.path.join(self.directory, "fold-2", "best.h5")), before)

    def test_predict_is_the_average_of_the_folds(self):
        out = os.path.join(self.folder, "submission.csv")
        run("predict", self.directory, test_file=TEST, output_file=out, per_fold=True,
            sample_submission=os.path.join(SAMPLE, "sample_submission.csv"))
        average = rows(out)
        self.assertEqual([r["text_id"] for r in average], [r["text_id"] for r in rows(TEST)])
        each = [rows(os.path.join(self.folder, "submission-%d.csv" % k)) for k in range(3)]
        for i, r in enumerate(average):
            for t in TARGETS:
                self.assertAlmostEqual(float(r[t]), sum(float(e[i][t]) for e in each) / 3, places=5)

    def test_checkpoint_and_export_predict_the_same(self):
        best, exported = os.path.join(self.directory, "fold-0", "best.h5"), os.path.join(self.folder, "exported")
        run("export", best, output=exported)
        for name, source in [("a", best), ("b", exported)]:
            run("predict", source, test_file=TEST, output_file=os.path.join(self.folder, name + ".csv"))
        a, b = rows(os.path.join(self.folder, "a.csv")), rows(os.path.join(self.folder, "b.csv"))
        for x, y in zip(a, b):
            for t in TARGETS:
                self.assertAlmostEqual(float(x[t]), float(y[t]), delta=1e-4)


class Options(ProgramTest):
    def test_no_evaluation(self):
        run("train", **dict(TINY, eval_strategy="no", save_strategy="no", output_dir=self.path("run")))
        self.assertEqual(len(events(self.path("run"), 0, "eval")), 1)  # the out-of-fold rows need one, at the end
        for name in ["best.h5", "last.h5"]:
            self.assertTrue(os.path.isfile(self.path("run", "fold-0", name)))

    def test_one_fold_trains_on_everything(self):
        run("train", **dict(TINY, folds=1, output_dir=self.path("run")))
        self.assertEqual(events(self.path("run"), 0, "eval"), [])
        self.assertTrue(os.path.isfile(self.path("run", "fold-0", "best.h5")))

    def test_validation_file(self):
        table = rows(TRAIN)
        with open(self.path("valid.csv"), "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, table[0].keys())
            writer.writeheader()
            writer.writerows(table[:20])
        run("train", **dict(TINY, validation_file=self.path("valid.csv"), output_dir=self.path("run")))
        self.assertEqual([r["text_id"] for r in rows(self.path("run", "oof.csv"))], [r["text_id"] for r in table[:20]])
        mean = {t: sum(float(r[t]) for r in table) / len(table) for t in TARGETS}  # of what is trained on
        rmse = [math.sqrt(sum((float(r[t]) - mean[t]) ** 2 for r in table[:20]) / 20) for t in TARGETS]
        self.assertAlmostEqual(summary(self.path("run"))["mean_predictor"]["MCRMSE"], sum(rmse) / len(rmse), places=6)

    def test_folds_file(self):
        with open(self.path("folds.csv"), "w") as f:
            f.write("text_id,fold\n")
            for i, r in enumerate(rows(TRAIN)):
                f.write("%s,%d\n" % (r["text_id"], i % 4))
        options = dict(TINY, folds_file=self.path("folds.csv"), output_dir=self.path("run"), train_folds=3)
        del options["folds"]
        run("train", **options)
        self.assertEqual(set(r["fold"] for r in rows(self.path("run", "oof.csv"))), {"3"})

    def test_every_loss_learns(self):
        for loss in ["rmse", "mse", "l1", "smooth_l1", "mcrmse"]:
            out = self.path(loss)
            run("train", **dict(TINY, loss_type=loss, max_steps=30, learning_rate=3e-3, eval_strategy="no",
                                output_dir=out))
            curve = losses(out)
            self.assertLess(sum(curve[-5:]) / 5, 0.7 * sum(curve[:3]) / 3, loss)

    def test_early_stopping(self):
        run("train", **dict(TINY, max_steps=40, learning_rate=0.3, eval_strategy="steps", eval_steps=1,
                            early_stopping_patience=2, output_dir=self.path("run")))
        evaluations = [e["eval_MCRMSE"] for e in events(self.path("run"), 0, "eval")]
        self.assertLess(len(evaluations), 40)
        best = evaluations.index(min(evaluations))
        self.assertEqual(len(evaluations), best + 3)

    def test_save_total_limit(self):
        run("train", **dict(TINY, max_steps=8, save_strategy="steps", save_steps=1, save_total_limit=3,
                            eval_strategy="no", output_dir=self.path("run")))
        names = [n for n in os.listdir(self.path("run", "fold-0")) if n.startswith("checkpoint-")]
        self.assertEqual(sorted(n for n in names if n.endswith(".h5")), ["checkpoint-%d.h5" % s for s in (5, 6, 7)])
        self.assertEqual(len(names), 6)  # each with its hash file
        run("predict", self.path("run", "fold-0", "checkpoint-6.h5"), test_file=TEST, output_file=self.path("s.csv"))

    def test_dry_run_leaves_no_run(self):
        done = run("train", **dict(TINY, dry_run=True, output_dir=self.path("run")))
        self.assertIn("memory per rank", done.stdout)
        self.assertFalse(os.path.exists(self.path("run", "run.yaml")))

    def test_debug(self):
        done = run("--debug", cwd=self.folder, **{k: v for k, v in TINY.items() if not k.startswith("max_")})
        self.assertEqual(len(losses(self.path("outputs", "debug"))), 3, done.stderr)

    def test_gradient_checkpointing_changes_no_bits(self):
        losses = []
        for checkpointing in (False, True):
            directory = self.path("gc%d" % checkpointing)
            run("train", **dict(TINY, output_dir=directory, gradient_checkpointing=checkpointing,
                                hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1))
            losses.append([e["loss"] for e in events(directory, 0, "step")])
        self.assertEqual(losses[0], losses[1])

    def test_dropout_everywhere(self):
        run("train", **dict(TINY, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, output_dir=self.path("a")))
        run("train", **dict(TINY, output_dir=self.path("b")))
        self.assertNotEqual(losses(self.path("a")), losses(self.path("b")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
