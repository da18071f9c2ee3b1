"""Steps whose gradient is not finite: agreed by all ranks, named, skipped and counted; too many of them end the run with
its last checkpoint."""

import csv
import json
import os
import struct
import unittest

from program import *

STEPS = dict(TINY, max_steps=8, max_train_samples=32, eval_strategy="no", save_strategy="steps", save_steps=1)
UNKNOWN = 3  # the token of what the tokenizer does not know


class NonFinite(ProgramTest):
    def setUp(self):
        """A model whose word table has a hole: not a number where the unknown token's row is."""
        super().setUp()
        run("train", **dict(TINY, output_dir=self.path("start"), max_steps=1))
        run("export", self.path("start", "fold-0", "best.h5"), output=self.path("model"))
        path = self.path("model", "model.safetensors")
        with open(path, "r+b") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            words = json.loads(f.read(size))["embeddings.word_embeddings.weight"]
            width = 4 * words["shape"][1]
            f.seek(8 + size + words["data_offsets"][0] + UNKNOWN * width)
            f.write(struct.pack("<f", float("nan")) * (width // 4))
        self.steps = {k: v for k, v in STEPS.items() if k not in ("model_preset", "init")}
        self.steps["model_name_or_path"] = self.path("model")

    def table(self, bad):
        """The sample, with an unknown character in the essays `bad`; in all where it is None."""
        table, path = rows(TRAIN), self.path("bad.csv")
        with open(path, "w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, table[0].keys())
            writer.writeheader()
            for i, row in enumerate(table):
                writer.writerow(dict(row, full_text="\u2603 " + row["full_text"]) if bad is None or i in bad else row)
        return path, [row["text_id"] for row in table]

    def folds(self, ids):
        """All rows in fold 1, so that fold 0 trains on the first of them in the order of the file."""
        path = self.path("folds.csv")
        with open(path, "w", encoding="utf-8") as out:
            out.write("text_id,fold\n" + "".join("%s,%d\n" % (i, 1 if k < 250 else 0) for k, i in enumerate(ids)))
        return path

    def skipped(self, out, fold=0):
        return [e["step"] for e in events(out, fold, "step") if e.get("skipped")]

    def test_named_skipped_and_counted(self):
        path, ids = self.table({5, 9})
        options = dict(self.steps, train_file=path, folds_file=self.folds(ids))
        for ranks in [None, 2]:
            out = self.path("run-%s" % ranks)
            done = run("train", ranks=ranks, **dict(options, output_dir=out))
            lines = [l for l in done.stderr.split("\n") if "is skipped" in l]
            skipped = self.skipped(out)
            self.assertEqual(len(lines), len(skipped))
            self.assertGreater(len(skipped), 0)  # two epochs of 32 samples in steps of 16, four times
            self.assertLess(len(skipped), 8)
            self.assertTrue(any(ids[5] in l for l in lines) and any(ids[9] in l for l in lines), lines)
            for step, line in zip(skipped, lines):
                self.assertIn("step %d of fold 0 is skipped: its gradient is not finite, first that of " % step, line)
                self.assertNotIn(ids[0] + ",", line)
            for e in events(out, 0, "step"):
                self.assertEqual(e["grad_norm"] is None or e["grad_norm"] != e["grad_norm"], e["step"] in skipped, e)

    def test_too_many_in_a_row(self):
        path, _ = self.table(None)
        out = self.path("run")
        done = run("train", ranks=2, code=1, **dict(self.steps, train_file=path, output_dir=out, max_nonfinite_steps=2))
        self.assertIn("not finite in 3 steps in a row, up to step 3 of fold 0", done.stderr)
        self.assertRegex(run("inspect", os.path.join(out, "fold-0", "last.h5")).stdout, r"\n  step +2\n")

    def test_the_weights_stay(self):
        """A skipped step changes nothing: the weights after it are those before it. (The evaluation at the end fails.)"""
        path, _ = self.table(None)
        out = self.path("run")
        run("train", code=1, **dict(self.steps, train_file=path, output_dir=out, max_steps=2, save_initial=True))
        self.assertEqual(self.skipped(out), [1, 2])
        self.assertEqual(weights_digest(os.path.join(out, "fold-0", "last.h5")),
                         weights_digest(os.path.join(out, "fold-0", "initial.h5")))

    def test_another_group_speaks(self):
        path, ids = self.table({290})  # in fold 0, so fold 1 trains on it
        out = self.path("run")
        done = run("train", ranks=2, fold_groups=2, **dict(self.steps, train_file=path, folds_file=self.folds(ids), train_folds="all",
                                                           max_train_samples=48, output_dir=out))
        lines = [l for l in done.stderr.split("\n") if "is skipped" in l]
        self.assertTrue(lines and all("group 1: " in l and "of fold 1" in l and ids[290] in l for l in lines), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
