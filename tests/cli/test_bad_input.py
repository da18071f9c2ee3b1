"""Bad input of every kind, as a user would give it: exit 2, one line that names what is wrong, nothing left half made."""

import os
import random
import re
import struct
import unittest
import zipfile

from program import *

HEADER = "text_id,full_text," + ",".join(TARGETS) + "\n"
GOOD = HEADER + "".join('id%d,"A short essay, number %d.",3,3,3,2.5,3,%s\n' % (i, i, 2 + i % 3) for i in range(12))

# Command lines: what is given instead of, or beside, a good one; a word that the line must have.
OPTIONS = [
    (dict(learning_rat=1e-3), "learning_rate"),
    (dict(lr=1e-3), "learning_rate"),
    (dict(epochs=3), "num_train_epochs"),
    (dict(learning_rate="fast"), "learning_rate"),
    (dict(learning_rate=-1), "learning_rate"),
    (dict(learning_rate="nan"), "learning_rate"),
    (dict(max_length=2), "max_length"),
    (dict(max_length=1.5), "max_length"),
    (dict(max_length=99999999999999999999), "max_length"),
    (dict(folds=0), "folds"),
    (dict(folds=1000), "folds"),
    (dict(train_folds="5"), "fold"),
    (dict(train_folds="0,x"), "train_folds"),
    (dict(per_device_train_batch_size=0), "per_device_train_batch_size"),
    (dict(gradient_accumulation_steps=7), "gradient_accumulation_steps"),
    (dict(warmup_ratio=2), "warmup_ratio"),
    (dict(lr_scheduler_type="linaer"), "linear"),
    (dict(lr_scheduler_kwargs="{"), "lr_scheduler_kwargs"),
    (dict(loss_type="huber"), "loss_type"),
    (dict(head_dropout=1.5), "head_dropout"),
    (dict(fp16=True), "bf16"),
    (dict(device="cuda"), "cuda"),
    (dict(device="tpu"), "device"),
    (dict(reproducible=True, reproducible_leaves=1), "reproducible_leaves"),
    (dict(fold_groups=2), "fold_groups"),
    (dict(report_to="wandbe"), "report_to"),
    (dict(metric_for_best_model="accuracy"), "metric_for_best_model"),
    (dict(eval_strategy="sometimes"), "eval_strategy"),
    (dict(model_preset="deberta-v4"), "model_preset"),
    (dict(model_name_or_path="microsoft/deberta-v3-base"), "model_preset"),
    (dict(model_name_or_path="microsoft/deberta-v3-base", model_preset=None, init=None), "fetch-model"),
    (dict(model_preset=None), "init"),
    (dict(init=None), "init"),
    (dict(tokenizer="/nowhere/spm.model"), "/nowhere/spm.model"),
    (dict(train_file="/nowhere/train.csv"), "/nowhere/train.csv"),
    (dict(train_file="/"), "/"),
    (dict(id_column="essay_id"), "essay_id"),
    (dict(text_column="text"), "text"),
    (dict(label_columns="cohesion,tone"), "tone"),
    (dict(folds_file="/nowhere/folds.csv"), "/nowhere/folds.csv"),
    (dict(fold_column="kfold"), "kfold"),
    (dict(validation_file="/nowhere/valid.csv"), "/nowhere/valid.csv"),
    (dict(resume="/nowhere/last.h5"), "/nowhere/last.h5"),
    (dict(output_dir="/proc/fb3"), "/proc/fb3"),
]

# CSV files: content, and a word that the line must have.
TABLES = [
    ("empty", b"", "empty"),
    ("header-only", HEADER.encode(), "no"),
    ("no-labels", b"text_id,full_text\na,b\n", "cohesion"),
    ("twice", GOOD.replace("id7", "id3").encode(), "id3"),
    ("word", GOOD.replace("2.5", "good", 1).encode(), "phraseology"),
    ("nan", GOOD.replace("2.5", "nan", 1).encode(), "phraseology"),
    ("blank", GOOD.replace("2.5", "", 1).encode(), "phraseology"),
    ("latin-1", GOOD.replace("essay", "\xe9ssai", 1).encode("latin-1"), "full_text"),
    ("utf-16", GOOD.encode("utf-16"), "UTF"),
    ("nul", GOOD.replace("short", "sh\0rt", 1).encode(), "NUL"),
    ("open-quote", (GOOD + 'id99,"never closed,1,2,3,4,5,6\n').encode(), "quote"),
    ("after-quote", GOOD.replace('1."', '1." more', 1).encode(), "quote"),
    ("few-fields", (GOOD + "id99,text,1,2\n").encode(), "field"),
    ("many-fields", (GOOD + "id99,text,1,2,3,4,5,6,7\n").encode(), "field"),
    ("same-column", GOOD.replace("syntax", "cohesion", 1).encode(), "cohesion"),
    ("no-id", GOOD.replace("id3,", ",", 1).encode(), "id"),
    ("one-row", (HEADER + "a,b,1,2,3,4,5,1\n").encode(), "folds"),
    ("not-h5.h5", b"\x89HDF\r\n\x1a\n" + b"x" * 3000, ".h5"),
    ("cut.h5", None, ".h5"),
]

YAMLS = [
    ("tab", "folds:\n\t- 3\n", "yaml:"),
    ("unknown", "fold: 3\n", "folds"),
    ("line", "folds: 2\nseed: 1\nlearning_rat: 3\n", "yaml:3"),
    ("type", "folds: many\n", "yaml:1"),
    ("twice", "seed: 1\nseed: 2\n", "seed"),
    ("list", "- seed\n", "yaml"),
    ("nested", "seed: {a: {b: 1}}\n", "seed"),
    ("variable", "train_file: ${FB3_TEST_NO_SUCH_VARIABLE}\n", "FB3_TEST_NO_SUCH_VARIABLE"),
    ("open", 'train_file: "abc\n', "yaml"),
    ("alias", "train_file: *x\n", "yaml"),
    ("binary", "\x01\x02", "yaml"),
]


class BadInput(ProgramTest):
    def setUp(self):
        super().setUp()
        self.csv = self.path("train.csv")
        with open(self.csv, "w") as f:
            f.write(GOOD)
        self.out = self.path("run")
        self.good = dict(TINY, train_file=self.csv, output_dir=self.out)

    def refused(self, word, *words, **options):
        done = run(*words, code=None, cwd=self.folder, **options)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        line = [l for l in done.stderr.strip().split("\n") if not re.match("fb3-dist: (warning|[0-9]+ essays)", l)]
        self.assertEqual(len(line), 1, done.stderr)
        self.assertTrue(line[0].startswith("fb3-dist: "), line[0])
        self.assertIn(word, line[0])
        for folder, _, names in os.walk(self.folder):
            self.assertFalse([n for n in names if n.endswith(".tmp")], folder)
        self.assertFalse(os.path.exists(os.path.join(self.out, "run.yaml")))

    def test_options(self):
        for given, word in OPTIONS:
            with self.subTest(**given):
                options = {k: v for k, v in dict(self.good, **given).items() if v is not None}
                self.refused(word, "train", **options)

    def test_tables(self):
        run("prepare", train_file=self.csv, tokenizer=SPM, output=self.path("whole.h5"))
        with open(self.path("whole.h5"), "rb") as f:
            whole = f.read()
        for name, content, word in TABLES:
            with self.subTest(name):
                path = self.path(name if "." in name else name + ".csv")
                with open(path, "wb") as f:
                    f.write(whole[:len(whole) // 2] if content is None else content)
                self.refused(word, "train", **dict(self.good, train_file=path))

    def test_yaml(self):
        for name, text, word in YAMLS:
            with self.subTest(name):
                path = self.path(name + ".yaml")
                with open(path, "w") as f:
                    f.write(text)
                self.refused(word, "train", path, **self.good)

    def test_command_line(self):
        for words, word in [(["trian"], "train"), (["train", "--"], "--"), (["train", "--seed"], "seed"),
                            (["train", "missing.yaml"], "missing.yaml"), (["export"], "export"),
                            (["export", "nothing.h5"], "output"), (["inspect", "nothing.h5"], "nothing.h5"),
                            (["predict", "nothing"], "test_file"), ([], "init"), (["report"], "run.yaml"),
                            (["predict", "nothing", "--test_file", TEST], "nothing"),
                            (["evaluate", "nothing.csv", "--test_file", TRAIN], "nothing.csv")]:
            with self.subTest(words=words):
                self.refused(word, *words)

    def test_one_line_over_ranks(self):
        done = run("train", ranks=3, code=None, **dict(self.good, learning_rat=1))
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count("fb3-dist: "), 1, done.stderr)
        done = run("train", ranks=3, code=None, **dict(self.good, train_file="/nowhere.csv"))
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count("/nowhere.csv"), 1, done.stderr)

    def test_model_files(self):
        run("train", **self.good)
        best = os.path.join(self.out, "fold-0", "best.h5")
        with open(best, "rb") as f:
            whole = f.read()
        chance = random.Random(3)
        for n in range(12):
            damaged = bytearray(whole)
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            with open(best, "wb") as f:
                f.write(damaged)
            done = run("predict", best, test_file=TEST, output_file=self.path("s.csv"), code=2)
            self.assertIn("best.h5", done.stderr)
            self.assertFalse(os.path.exists(self.path("s.csv")))
        with open(best, "wb") as f:
            f.write(whole[:len(whole) // 3])
        run("predict", best, test_file=TEST, output_file=self.path("s.csv"), code=2)
        with open(best, "wb") as f:
            f.write(whole)
        exported = self.path("exported")
        run("export", best, output=exported)
        run("export", best, output=exported, code=2)  # it is there already
        weights = os.path.join(exported, "model.safetensors")
        with open(weights, "rb") as f:
            good = f.read()
        for bad in [good[:100], b"", struct.pack("<Q", 1 << 62) + good[8:], good[:-4],
                    good.replace(b"layer.0.output", b"layer.9.output", 1)]:
            with open(weights, "wb") as f:
                f.write(bad)
            run("predict", exported, test_file=TEST, output_file=self.path("s.csv"), code=2)
        os.remove(weights)
        with zipfile.ZipFile(os.path.join(exported, "pytorch_model.bin"), "w") as z:
            z.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch %s'\ntR." % self.path("pwned").encode())
        run("predict", exported, test_file=TEST, output_file=self.path("s.csv"), code=2)
        self.assertFalse(os.path.exists(self.path("pwned")))


if __name__ == "__main__":
    unittest.main(verbosity=1)
