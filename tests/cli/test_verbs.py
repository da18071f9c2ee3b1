"""init, prepare, folds, inspect, doctor, export, help and version, as a user calls them."""

import json
import os
import re
import shutil
import unittest
import zipfile

from program import *


class Verbs(ProgramTest):
    def text(self, *names):
        with open(self.path(*names)) as f:
            return f.read()

    def test_init_writes_a_configuration_that_parses(self):
        run("init", cwd=self.folder)
        text = self.text("fb3.yaml")
        run("init", cwd=self.folder, code=2)  # what is there is left alone
        self.assertEqual(self.text("fb3.yaml"), text)
        with open(self.path("fb3.yaml"), "w") as f:  # as a user edits it
            f.write(re.sub("(?m)^(model_name_or_path|train_file):.*", "", text) + "model_preset: tiny\ninit: random\n")
        options = {k: v for k, v in dict(TINY, output_dir=self.path("run")).items() if k not in ("init", "model_preset")}
        run(cwd=self.folder, **options)  # no verb means train, from ./fb3.yaml
        self.assertTrue(os.path.isfile(self.path("run", "summary.json")))

    def test_no_configuration(self):
        done = run(cwd=self.folder, code=2)
        self.assertIn("fb3-dist init", self.assertOneLine(done))

    def test_precedence(self):
        with open(self.path("a.yaml"), "w") as f:
            f.write("\n".join("%s: %s" % kv for kv in dict(TINY, output_dir="${WHERE:-nowhere}/run").items()))
        env = environment(WHERE=self.folder, FB3_MAX_STEPS="3", FB3_SEED="9", FB3_LOGGING_STEPS="1")
        run("train", self.path("a.yaml"), "--max_steps=4", env=env)
        stored = self.text("run", "run.yaml")
        self.assertEqual(len(losses(self.path("run"))), 4)
        self.assertIn("seed: 9", stored)

    def test_prepare_then_train(self):
        run("prepare", train_file=TRAIN, tokenizer=SPM, max_length=64, output=self.path("data.h5"))
        before = os.stat(self.path("data.h5")).st_mtime_ns
        run("prepare", train_file=TRAIN, tokenizer=SPM, max_length=64, output=self.path("data.h5"))
        self.assertEqual(os.stat(self.path("data.h5")).st_mtime_ns, before)  # reused
        run("train", **dict(TINY, train_file=self.path("data.h5"), output_dir=self.path("a")))
        run("train", **dict(TINY, output_dir=self.path("b")))
        self.assertEqual(losses(self.path("a")), losses(self.path("b")))

    def test_folds(self):
        done = run("folds", train_file=TRAIN, folds=3, output_dir=self.path("out"))
        table = rows(self.path("out", "folds.csv"))
        self.assertEqual([r["text_id"] for r in table], [r["text_id"] for r in rows(TRAIN)])
        self.assertEqual(sorted(set(r["fold"] for r in table)), ["0", "1", "2"])
        self.assertIn("fold 2", done.stdout)
        self.assertFalse(os.path.exists(self.path("out", "run.yaml")))

    def test_folds_are_those_of_training(self):
        run("folds", train_file=TRAIN, folds=2, output_dir=self.path("a"))
        run("train", **dict(TINY, output_dir=self.path("b")))
        self.assertEqual(rows(self.path("a", "folds.csv")), rows(self.path("b", "folds.csv")))
        self.assertEqual(os.listdir(self.path("a")), ["folds.csv"])

    def test_inspect_export_evaluate(self):
        out = self.path("run")
        run("train", **dict(TINY, output_dir=out))
        best = os.path.join(out, "fold-0", "best.h5")
        for what, word in [(out, "run directory"), (os.path.join(out, "data.h5"), "data set"),
                           (best, "encoder.layer.1.output.dense.weight")]:
            self.assertIn(word, run("inspect", what).stdout)
        for dtype, size in [("float32", 4), ("float16", 2), ("bfloat16", 2)]:
            run("export", best, output=self.path(dtype), dtype=dtype)
            tensors = safetensors(self.path(dtype, "model.safetensors"))
            kind, shape, data = tensors["fc.weight"]
            self.assertEqual(shape, [6, 64])
            self.assertEqual(len(data), 6 * 64 * size)
            for name in ["config.json", "spm.model", "tokenizer.json", "tokenizer_config.json"]:
                self.assertTrue(os.path.isfile(self.path(dtype, name)), name)
        self.assertEqual(json.loads(self.text("float32", "config.json"))["hidden_size"], 64)
        run("export", best, output=self.path("torch"), format="torch")
        with zipfile.ZipFile(self.path("torch", "pytorch_model.bin")) as z:
            self.assertIsNone(z.testzip())
            self.assertTrue(any(n.endswith("/data.pkl") for n in z.namelist()))
        # what DeBERTa-v3's own file says: no limit, as an integer that does not fit 64 bits; so max_length must be given
        with open(self.path("float16", "tokenizer_config.json"), "w") as f:
            f.write('{"model_max_length": 1000000000000000019884624838656, "do_lower_case": false}')
        for source in ["float16", "torch"]:
            run("predict", self.path(source), test_file=TEST, output_file=self.path(source + ".csv"), max_length=64)
        run("predict", best, test_file=TEST, output_file=self.path("best.csv"))
        for source, delta in [("float16", 5e-3), ("torch", 1e-5)]:
            for a, b in zip(rows(self.path(source + ".csv")), rows(self.path("best.csv"))):
                for t in TARGETS:
                    self.assertAlmostEqual(float(a[t]), float(b[t]), delta=delta)
        self.assertIn("Pearson", run("evaluate", out, test_file=TRAIN).stdout)
        run("predict", out, test_file=TRAIN, output_file=self.path("s.csv"))
        by_model = run("evaluate", out, test_file=TRAIN).stdout.split("\n")[-3:]
        by_table = run("evaluate", self.path("s.csv"), test_file=TRAIN).stdout.split("\n")[-3:]
        self.assertEqual(by_model, by_table)

    def test_scoring_at_the_same_moment(self):
        """Several score one test file, of a folder in which nothing may be written, and none sees another's work."""
        out, data = self.path("run"), self.path("data")
        run("train", **dict(TINY, output_dir=out))
        os.mkdir(data)
        shutil.copy(TRAIN, data)
        os.mkdir(os.path.join(data, os.path.basename(TRAIN) + ".tokens.h5"))  # would be in the way
        test_file = os.path.join(data, os.path.basename(TRAIN))
        alone = run("evaluate", out, test_file=test_file, cwd=self.folder).stdout
        self.assertIn("Pearson", alone)
        several = [start("evaluate", out, test_file=test_file, cwd=self.folder, ranks=2 if k == 0 else None)
                   for k in range(4)]
        for one in several:
            stdout, stderr = one.communicate()
            self.assertEqual((stdout.split("\n")[-3:], one.returncode), (alone.split("\n")[-3:], 0), stderr)
        run("predict", out, test_file=test_file, cwd=self.folder)
        self.assertEqual(sorted(os.listdir(self.folder)), ["data", "run", "submission.csv"])
        self.assertEqual(len(os.listdir(data)), 2)

    def test_clip_and_embeddings(self):
        out = self.path("run")
        run("train", **dict(TINY, output_dir=out))
        run("predict", out, test_file=TEST, output_file=self.path("s.csv"), clip_predictions="2.5,2.6",
            embeddings_file=self.path("e.h5"))
        for r in rows(self.path("s.csv")):
            for t in TARGETS:
                self.assertTrue(2.5 <= float(r[t]) <= 2.6)
        with open(self.path("e.h5"), "rb") as f:
            self.assertEqual(f.read(8), b"\x89HDF\r\n\x1a\n")
        self.assertGreater(os.path.getsize(self.path("e.h5")), len(rows(TEST)) * 64 * 4)
        self.assertEqual([n for n in os.listdir(self.folder) if "tokens" in n], [])

    def test_installed_tree_runs_from_anywhere(self):
        subprocess.run(["cmake", "--install", os.path.dirname(PROGRAM), "--prefix", self.path("prefix")], check=True,
                       capture_output=True)
        os.rename(self.path("prefix"), self.path("moved"))
        share = self.path("moved", "share", "fb3-dist")
        done = subprocess.run([self.path("moved", "bin", "fb3-dist"), "configs/quickstart.yaml", "--max_steps", "2",
                               "--output_dir", self.path("run")], cwd=share, env=environment(), capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(os.path.isfile(self.path("run", "summary.json")))

    def test_doctor_help_version(self):
        self.assertIn("onednn", run("doctor").stdout)
        text = run("--help").stdout
        for word in ["predict", "--learning_rate", "--folds", "export"]:
            self.assertIn(word, text)
        for verb in ["train", "predict", "evaluate", "prepare", "folds", "init", "export", "inspect", "doctor"]:
            self.assertIn(verb, run(verb, "--help").stdout)
        self.assertIn("oneDNN", run("--version").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
