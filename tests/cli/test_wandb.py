"""report_to: wandb in the whole program: it changes nothing of the training, never stops it, goes on with it after an
interruption, and its artifacts predict. test_wandb_readers.py asks W&B's own programs."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import wandb_records as wb
from program import (PROGRAM, SAMPLE, TEST, TINY, ProgramTest, arguments, environment, events, kill_all, losses, run,
                     start, steps_done, weights_digest)

# One thread: the steps are too small for more.
TINY = dict(TINY, bind="keep")
ONE_THREAD = environment(OMP_NUM_THREADS="1")
LONG = dict(TINY, max_steps=100, eval_strategy="no", save_strategy="steps", save_steps=5)


def wait_for_steps(process, out, steps):
    deadline = time.time() + 60
    while steps_done(out) < steps:
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.02)


class Wandb(ProgramTest):
    def train(self, name, **options):
        defaults = dict(TINY, output_dir=self.path(name), report_to="wandb")
        return run("train", env=ONE_THREAD, **dict(defaults, **options))

    def files_below(self, name):
        for folder, _, names in os.walk(self.path(name)):
            for file in names:
                with open(os.path.join(folder, file), "rb") as opened:
                    yield os.path.join(folder, file), opened.read()


class Recording(Wandb):
    def test_training_is_the_same(self):
        self.train("with")
        self.train("without", report_to="none")
        self.assertEqual(losses(self.path("with")), losses(self.path("without")))
        self.assertEqual(weights_digest(self.path("with", "fold-0", "best.h5")),
                         weights_digest(self.path("without", "fold-0", "best.h5")))
        self.assertFalse(os.path.exists(self.path("without", "artifacts")))

    def test_a_run_per_fold(self):
        self.train("run", train_folds="all", wandb_entity="team")
        for fold in range(2):
            (log,) = wb.logs(self.path("run"), fold)
            about = wb.of_kind(log, "run")[0]
            self.assertEqual(wb.one(about, 8), b"FB3-fold-%d" % fold)
            self.assertEqual((wb.one(about, 3), wb.one(about, 2), wb.one(about, 6), wb.one(about, 7)),
                             (b"FB3-deberta-v3", b"team", b"FB3-BASELINE-MODEL", b"train"))
            self.assertEqual([v for n, v in wb.fields(about) if n == 10], [b"tiny", b"rmse", b"6-steps"])
            self.assertEqual(wb.exit_code(log), 0)
            steps = [line for line in wb.history(log) if "train/loss" in line]
            truth = events(self.path("run"), fold, "step")
            self.assertEqual([line["train/global_step"] for line in steps], [e["step"] for e in truth])
            for line, event in zip(steps, truth):
                self.assertAlmostEqual(line["train/loss"], event["loss"], places=6)
            self.assertEqual([line["_step"] for line in wb.history(log)], list(range(len(wb.history(log)))))

    def test_secrets_and_paths_stay_out(self):
        env = environment(OMP_NUM_THREADS="1", WANDB_API_KEY="a-key-0123456789", MY_PASSWORD="pass-word-1",
                          HOME="/home/some-body")
        with open(os.path.join(SAMPLE, "spm.model"), "rb") as spm, open(self.path("spm.model"), "wb") as copy:
            copy.write(spm.read())
        shutil.copy(TINY["train_file"], self.path("train.csv"))
        run("train", cwd=self.folder, env=env,
            **dict(TINY, report_to="wandb", output_dir="run", tokenizer="spm.model", train_file="train.csv"))
        seen = 0
        for path, data in self.files_below("run"):
            for word in (b"a-key-0123456789", b"pass-word-1", b"some-body", self.folder.encode()):
                self.assertNotIn(word, data, path)
            seen += 1
        self.assertGreater(seen, 10)

    def test_disabled_by_variable(self):
        run("train", env=environment(OMP_NUM_THREADS="1", WANDB_MODE="disabled"),
            **dict(TINY, report_to="wandb", output_dir=self.path("run")))
        self.assertFalse(os.path.exists(self.path("run", "wandb")))
        self.assertFalse(os.path.exists(self.path("run", "artifacts")))


class Interruptions(Wandb):
    def test_killed_and_continued(self):
        out = self.path("run")
        process = start("train", env=ONE_THREAD, **dict(LONG, report_to="wandb", output_dir=out))
        wait_for_steps(process, out, 12)
        kill_all(process, out)
        (first,) = wb.logs(out, 0)
        self.assertIsNone(wb.exit_code(first))  # that is how a reader sees a crash
        run("train", env=ONE_THREAD, **dict(LONG, report_to="wandb", output_dir=out))
        first, second = wb.logs(out, 0)
        lines = wb.history(first) + wb.history(second)
        steps = [line["train/global_step"] for line in lines if "train/loss" in line]
        self.assertEqual(steps, list(range(1, 101)))
        self.assertEqual([line["_step"] for line in lines], list(range(len(lines))))
        self.assertEqual(sorted(line["_runtime"] for line in lines), [line["_runtime"] for line in lines])
        self.assertEqual(wb.exit_code(second), 0)
        about = wb.of_kind(second, "run")[0]
        self.assertEqual(wb.one(about, 1), wb.one(wb.of_kind(first, "run")[0], 1))
        self.assertEqual(wb.one(about, 18), 1)  # resumed
        self.assertEqual(wb.one(about, 14), wb.history(second)[0]["_step"])  # where it starts

    def test_stopped_by_a_signal(self):
        out = self.path("run")
        process = start("train", env=ONE_THREAD, **dict(LONG, report_to="wandb", output_dir=out))
        wait_for_steps(process, out, 3)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75)
        (log,) = wb.logs(out, 0)
        self.assertEqual(wb.exit_code(log), 75)
        self.assertEqual(len(wb.of_kind(log, "preempting")), 1)
        console = b"".join(wb.one(data, 3) for data in wb.of_kind(log, "output_raw"))
        self.assertIn(b"stopped after step", console)


class Failures(Wandb):
    def assertWarnedOnce(self, done, text):
        self.assertEqual(done.stderr.count("training goes on without it"), 1, done.stderr)
        self.assertIn(text, done.stderr)

    def test_a_folder_that_cannot_be_made(self):
        with open(self.path("file"), "w"):
            pass
        done = self.train("run", wandb_dir=self.path("file"))
        self.assertWarnedOnce(done, "wandb: ")
        self.assertEqual(len(losses(self.path("run"))), 6)

    def test_read_only_in_mid_run(self):
        """Without the capability that lets root write everywhere."""
        drop = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"]
        if os.geteuid() != 0:
            drop = []
        elif not shutil.which("setpriv") or subprocess.run(drop + ["true"], capture_output=True).returncode != 0:
            self.skipTest("root without setpriv, or without the right to give up rights")
        out = self.path("run")
        options = dict(TINY, report_to="wandb", output_dir=out, wandb_dir=self.path("elsewhere"), max_steps=60,
                       eval_strategy="steps", eval_steps=30)
        process = subprocess.Popen(drop + [PROGRAM, "train"] + arguments(options), env=ONE_THREAD, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        wait_for_steps(process, out, 3)
        (log,) = wb.logs(self.path("elsewhere"))
        for folder in (os.path.join(os.path.dirname(log), "files"), os.path.dirname(log)):
            os.chmod(folder, 0o555)
        said = process.communicate(timeout=100)[1]
        for folder in (os.path.dirname(log), os.path.join(os.path.dirname(log), "files")):
            os.chmod(folder, 0o755)
        self.assertEqual(process.returncode, 0, said)
        self.assertEqual(said.count("training goes on without it"), 1, said)
        self.assertEqual(len(losses(out)), 60)
        self.assertTrue(os.path.exists(os.path.join(out, "fold-0", "best.h5")))

    def test_an_artifact_that_cannot_be_written(self):
        os.makedirs(self.path("run"))
        with open(self.path("run", "artifacts"), "w"):
            pass
        done = self.train("run")
        self.assertEqual(done.stderr.count("is not exported for report_to"), 1, done.stderr)
        (log,) = wb.logs(self.path("run"), 0)
        self.assertEqual(wb.exit_code(log), 0)
        self.assertEqual(wb.of_kind(log, "artifact"), [])


class Artifacts(Wandb):
    @classmethod
    def setUpClass(cls):
        cls.trained = tempfile.mkdtemp(prefix="fb3-test-")
        cls.addClassCleanup(shutil.rmtree, cls.trained)
        run("train", env=ONE_THREAD, **dict(TINY, output_dir=os.path.join(cls.trained, "run"), report_to="wandb",
                                            train_folds="all"))

    def setUp(self):
        super().setUp()
        shutil.copytree(os.path.join(self.trained, "run"), self.path("run"))
        # as artifact.download() leaves them
        self.downloads = [self.path("artifacts", "FB3-fold-%d:v0" % fold) for fold in range(2)]
        for fold, download in enumerate(self.downloads):
            shutil.copytree(self.path("run", "artifacts", "FB3-fold-%d" % fold), download)

    def predict(self, *words, code=0, **options):
        return run("predict", *words, code=code, env=ONE_THREAD, bind="keep", test_file=TEST,
                   output_file=self.path("submission.csv"), **options)

    def submission(self):
        with open(self.path("submission.csv")) as file:
            return file.read()

    def test_the_same_predictions(self):
        self.predict(self.path("run"))
        expected = self.submission()
        for words, options in (((self.downloads[1],), dict(artifact=self.downloads[0])),
                               ((), dict(artifact=",".join(self.downloads))), (self.downloads, {})):
            self.predict(*words, **options)
            self.assertEqual(self.submission(), expected)

    def test_its_files(self):
        for fold in range(2):
            files = {"pytorch_model.bin", "config.json", "tokenizer.json", "spm.model", "wandb_manifest.json"}
            self.assertLessEqual(files, set(os.listdir(self.downloads[fold])))
            (log,) = wb.logs(self.path("run"), fold)
            (artifact,) = wb.of_kind(log, "artifact")
            self.assertEqual(wb.one(artifact, 5), b"FB3-fold-%d" % fold)
            self.assertEqual(wb.one(artifact, 7), b"MultilabelStratified - fold--%d" % fold)
            self.assertEqual([v for n, v in wb.fields(artifact) if n == 11], [b"latest", b"best"])
            metadata = json.loads(wb.one(artifact, 8))
            end = events(self.path("run"), fold, "end")[0]
            self.assertAlmostEqual(metadata["score"], end["best_metric"], places=6)

    def test_a_damaged_download(self):
        model = os.path.join(self.downloads[1], "pytorch_model.bin")
        with open(model, "r+b") as file:
            file.seek(1000)
            byte = file.read(1)
            file.seek(1000)
            file.write(bytes([byte[0] ^ 1]))
        done = self.predict(code=2, artifact=",".join(self.downloads))
        self.assertIn("FB3-fold-1:v0/pytorch_model.bin is not the file that wandb_manifest.json describes", done.stderr)

    def test_no_manifest(self):
        self.predict(self.path("run"))
        expected = self.submission()
        for download in self.downloads:
            os.remove(os.path.join(download, "wandb_manifest.json"))
        self.predict(artifact=",".join(self.downloads))
        self.assertEqual(self.submission(), expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
