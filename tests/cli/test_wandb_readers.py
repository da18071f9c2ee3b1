"""What W&B's own programs make of our files. FB3_ORACLE_WANDB names a Python with the wandb package (tests/track/oracles.txt
has the versions), FB3_ORACLE_WANDB_OLD one with the last that had a reader in Python; skipped by name without the
first. Nothing here needs a network: runs stay offline."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
import unittest

import wandb_records as wb
from program import PROGRAM, SOURCE, TARGETS, TINY, ProgramTest, environment, events, kill_all, run, start, steps_done

ORACLE, OLD = os.environ.get("FB3_ORACLE_WANDB"), os.environ.get("FB3_ORACLE_WANDB_OLD")
TINY = dict(TINY, bind="keep", report_to="wandb", wandb_entity="team", wandb_notes="a note: with \"quotes\" and ü")

# Reads every record of the files named, as far as DataStore goes, and prints what kinds there are.
READ_OLD = """
import json, sys
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.internal.datastore import DataStore
for path in sys.argv[1:]:
    store, kinds = DataStore(), []
    store.open_for_scan(path)
    for data in iter(store.scan_data, None):
        record = Record.FromString(bytes(data))
        assert record.num == len(kinds) + 1
        assert record.ByteSize() == len(data)  # nothing unknown, nothing left out
        kinds.append(record.WhichOneof("record_type"))
    print(json.dumps(kinds))
"""

DIGEST = """
import sys, wandb
artifact = wandb.Artifact("FB3-fold-0", type="model")
artifact.add_dir(sys.argv[1], skip_cache=True)
print(artifact.digest)
"""


def offline(**extra):
    return environment(OMP_NUM_THREADS="1", WANDB_MODE="offline", WANDB_SILENT="true", WANDB_ERROR_REPORTING="false",
                       **extra)


def oracle(*words, python=ORACLE, code=0, cwd=None, env=None):
    done = subprocess.run([python, *words], capture_output=True, text=True, timeout=120, cwd=cwd, env=env or offline(),
                          stdin=subprocess.DEVNULL)
    if code is not None and done.returncode != code:
        raise AssertionError("%s: %d\n%s%s" % (words, done.returncode, done.stdout, done.stderr))
    return done


def cli(*words, **options):
    return oracle("-m", "wandb", *words, **options)


def inspect(path):
    """Every record, as W&B prints it."""
    return [json.loads(line) for line in cli("leet", "inspect", "--json", path).stdout.splitlines()]


def summary(path):
    return json.loads(cli("leet", "inspect", "--summary", "--json", path).stdout)


def flat(value, prefix=""):
    """A nested JSON object as {"a.b": value}; keys may have dots already."""
    if not isinstance(value, dict):
        return {prefix: value}
    found = {}
    for key, part in value.items():
        found.update(flat(part, prefix + "." + key if prefix else key))
    return found


class Readers(ProgramTest):
    def assertSameNumbers(self, got, event, names):
        for name, key in names.items():
            self.assertAlmostEqual(got[name], event[key], places=6, msg=name)


class WholeRun(Readers):
    """One run for several questions."""

    @classmethod
    def setUpClass(cls):
        cls.home = os.path.join(os.environ.get("TMPDIR", "/tmp"), "fb3-wandb-readers-%d" % os.getpid())
        os.makedirs(cls.home)
        cls.addClassCleanup(shutil.rmtree, cls.home)
        cls.out = os.path.join(cls.home, "run")
        cls.done = run("train", env=offline(), **dict(TINY, train_folds="all", output_dir=cls.out))

    def test_every_record_is_decoded(self):
        for fold in range(2):
            (log,) = wb.logs(self.out, fold)
            read, ours = inspect(log), wb.records(log)
            self.assertEqual([r["type"] for r in read], [kind for kind, _ in ours])
            self.assertEqual([r["num"] for r in read], list(range(1, len(ours) + 1)))
            for record in read:
                self.assertIn(record["type"], record)
            history = [r["history"]["item"] for r in read if r["type"] == "history"]
            steps = [line for line in history if "train/loss" in line]
            for line, event in zip(steps, events(self.out, fold, "step"), strict=True):
                self.assertSameNumbers(line, event, {"train/loss": "loss", "train/grad_norm": "grad_norm",
                                                     "train/learning_rate": "learning_rate", "train/epoch": "epoch",
                                                     "train/global_step": "step"})
            evals = [line for line in history if "eval/MCRMSE" in line]
            names = {"eval/%s_RMSE" % t.upper(): "eval_%s_RMSE" % t.upper() for t in TARGETS}
            names.update({"eval/MCRMSE": "eval_MCRMSE", "eval/loss": "eval_loss", "train/global_step": "step"})
            for line, event in zip(evals, events(self.out, fold, "eval"), strict=True):
                self.assertSameNumbers(line, event, names)

    def test_summary_config_console(self):
        for fold in range(2):
            (log,) = wb.logs(self.out, fold)
            text = cli("leet", "inspect", "--summary", log).stdout
            self.assertRegex(text, r"(?m)^state +finished \(exit code 0\)$")
            self.assertRegex(text, r"(?m)^run +FB3-fold-%d " % fold)
            self.assertRegex(text, r"(?m)^project +team/FB3-deberta-v3$")
            read = summary(log)
            values, config = flat(read["summary"]), flat(read["config"])
            best = min(e["eval_MCRMSE"] for e in events(self.out, fold, "eval"))
            self.assertAlmostEqual(values["eval/MCRMSE.min"], best, places=6)
            last = events(self.out, fold, "step")[-1]
            self.assertSameNumbers(values, last, {"train/loss": "loss", "train/global_step": "step"})
            self.assertEqual(config["learning_rate"], 1e-3)
            self.assertEqual(config["label_columns"], TARGETS)
            self.assertEqual(config["wandb_notes"], TINY["wandb_notes"])
            console = text.split("console (", 1)[1]
            said = [line for line in self.done.stderr.splitlines()
                    if "fold %d/2  step" % (fold + 1) in line]
            self.assertTrue(said)
            for line in said:
                self.assertIn(line, console)

    def test_definitions(self):
        (log,) = wb.logs(self.out, 0)
        metrics = {m.get("name", m.get("glob_name")): m for m in
                   (r["metric"] for r in inspect(log) if r["type"] == "metric")}
        for name in ["eval/loss", "eval/MCRMSE"] + ["eval/%s_RMSE" % t.upper() for t in TARGETS]:
            self.assertEqual((metrics[name]["goal"], metrics[name]["summary"]), ("GOAL_MINIMIZE", {"min": True}))
        for name, metric in metrics.items():
            if name != "train/global_step":
                self.assertEqual(metric["step_metric"], "train/global_step")
        self.assertIn("*", metrics)

    def test_artifact_digests(self):
        for fold in range(2):
            (log,) = wb.logs(self.out, fold)
            (artifact,) = [r["artifact"] for r in inspect(log) if r["type"] == "artifact"]
            directory = os.path.join(self.out, "artifacts", "FB3-fold-%d" % fold)
            self.assertEqual(artifact["digest"], oracle("-c", DIGEST, directory).stdout.split()[-1])
            self.assertEqual({e["path"] for e in artifact["manifest"]["contents"]}, set(os.listdir(directory)))

    def test_the_latest_run_is_found(self):
        text = cli("leet", "inspect", "--summary", os.path.join(self.out, "wandb")).stdout
        self.assertRegex(text, r"(?m)^run +FB3-fold-1 ")

    def test_sync_lists_the_runs(self):
        done = cli("sync", "--dry-run", os.path.join(self.out, "wandb"))
        said = done.stdout + done.stderr
        self.assertIn("Would sync 2 run(s)", said)
        for log in wb.logs(self.out):
            self.assertIn(os.path.basename(log), said)

    @unittest.skipUnless(OLD, "FB3_ORACLE_WANDB_OLD is not set")
    def test_the_reader_of_older_versions(self):
        logs = wb.logs(self.out)
        lines = oracle("-c", READ_OLD, *logs, python=OLD).stdout.splitlines()
        for log, line in zip(logs, lines, strict=True):
            self.assertEqual(json.loads(line), [kind for kind, _ in wb.records(log)])


class Interrupted(Readers):
    def test_a_crash_is_seen(self):
        out = self.path("run")
        options = dict(TINY, max_steps=100, eval_strategy="no", save_strategy="steps", save_steps=5, output_dir=out)
        process = start("train", env=offline(), **options)
        while steps_done(out) < 8:
            self.assertIsNone(process.poll())
            time.sleep(0.02)
        kill_all(process, out)
        (log,) = wb.logs(out, 0)
        read = inspect(log)  # a torn record at the end, if any, is no error
        self.assertNotIn("exit", [r["type"] for r in read])
        text = cli("leet", "inspect", "--summary", log).stdout
        self.assertNotRegex(text, r"(?m)^state +finished")
        run("train", env=offline(), **options)
        first, second = wb.logs(out, 0)
        self.assertRegex(cli("leet", "inspect", "--summary", second).stdout, r"(?m)^state +finished \(exit code 0\)$")
        done = cli("sync", "--dry-run", os.path.join(out, "wandb"))
        self.assertIn("Would sync 2 run(s)", done.stdout + done.stderr)


@unittest.skipUnless(OLD, "FB3_ORACLE_WANDB_OLD is not set")
class Framing(Readers):
    def test_consoles_of_all_lengths(self):
        """Notes of so many bytes that the records behind them lie at every place near a block's end."""
        draw = random.Random(1)
        for length in [32000 + draw.randrange(1500) for _ in range(4)] + [100000]:
            out = self.path("run-%d" % length)
            with open(self.path("run.yaml"), "w") as config:
                config.write("wandb_notes: %s\n" % ("n" * length))
            run("train", self.path("run.yaml"), env=offline(),
                **{k: v for k, v in dict(TINY, max_steps=2, output_dir=out).items() if k != "wandb_notes"})
            (log,) = wb.logs(out)
            (line,) = oracle("-c", READ_OLD, log, python=OLD).stdout.splitlines()
            self.assertEqual(json.loads(line), [r["type"] for r in inspect(log)])


class Upload(Readers):
    def upload(self, *words):
        return oracle(os.path.join(SOURCE, "tools", "wandb-upload"), self.path("run"), "--program", PROGRAM, *words,
                      env=offline()).stdout

    def test_from_metrics(self):
        run("train", env=offline(), **dict(TINY, report_to="none", output_dir=self.path("run")))
        said = self.upload()
        self.assertIn("fold 0: 8 of 8 events are new, with its model", said)
        (log,) = wb.logs(self.path("run"), 0)
        read = summary(log)
        values = flat(read["summary"])
        end, last = events(self.path("run"), 0, "end")[0], events(self.path("run"), 0, "step")[-1]
        self.assertSameNumbers(values, last, {"train/loss": "loss", "train/global_step": "step"})
        self.assertSameNumbers(values, end, {"train_runtime": "train_runtime", "best_metric": "best_metric"})
        self.assertEqual(flat(read["config"])["learning_rate"], 1e-3)
        records = inspect(log)
        (artifact,) = [r["artifact"] for r in records if r["type"] == "artifact"]
        self.assertEqual((artifact["name"], artifact["type"], sorted(artifact["aliases"])),
                         ("FB3-fold-0", "model", ["best", "latest"]))
        (about,) = [r["run"] for r in records if r["type"] == "run"][:1]
        self.assertEqual((about["display_name"], about["run_group"], about["job_type"], about["entity"]),
                         ("FB3-fold-0", "FB3-BASELINE-MODEL", "train", "team"))
        self.assertEqual(about["tags"], ["tiny", "rmse", "6-steps"])
        # again: nothing is sent twice
        self.assertIn("fold 0: nothing new", self.upload())
        self.assertEqual(len(wb.logs(self.path("run"), 0)), 1)
        # what it exported predicts
        run("predict", artifact=self.path("run", "artifacts", "FB3-fold-0"), test_file=os.path.join(
            SOURCE, "tests", "sample", "test.csv"), output_file=self.path("submission.csv"))

    def test_while_it_grows(self):
        run("train", env=offline(), **dict(TINY, report_to="none", output_dir=self.path("run")))
        path = self.path("run", "fold-0", "metrics.jsonl")
        with open(path) as log:
            lines = log.readlines()
        with open(path, "w") as log:
            log.writelines(lines[:4])
            log.write(lines[4][:20])  # half a line
        self.assertIn("fold 0: 3 of 3 events are new; it is not over", self.upload())
        with open(path, "w") as log:
            log.writelines(lines)
        self.assertIn("fold 0: 5 of 8 events are new\n", self.upload("--no-artifacts"))
        self.assertIn("fold 0: 0 of 8 events are new, with its model\n", self.upload())


class SyncLoop(ProgramTest):
    """With a wandb command that only notes how it was called."""

    def setUp(self):
        super().setUp()
        os.makedirs(self.path("bin"))
        with open(self.path("bin", "wandb"), "w") as stub:
            stub.write('#!/bin/sh\necho "$PWD: $*" >>"%s"\n[ ! -e "%s" ]\n' % (self.path("calls"), self.path("fail")))
        os.chmod(self.path("bin", "wandb"), 0o755)
        run("train", cwd=self.folder, env=offline(), **dict(TINY, train_folds="all", output_dir="a/run"))

    def loop(self, *words, code=0, timeout=30):
        env = environment(PATH=self.path("bin") + ":" + os.environ["PATH"])
        done = subprocess.run([os.path.join(SOURCE, "tools", "wandb-sync-loop"), *words], env=env, timeout=timeout,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def calls(self):
        if not os.path.exists(self.path("calls")):
            return []
        with open(self.path("calls")) as file:
            return file.read().splitlines()

    def test_each_recording_once(self):
        self.loop(self.path("a", "run"), "--every", "1")  # the run is over, so the loop ends
        calls = self.calls()
        self.assertEqual(len(calls), 2)
        for call, log in zip(calls, wb.logs(self.path("a", "run"))):
            self.assertEqual(call, "%s: sync %s" % (os.path.realpath(self.folder), os.path.dirname(os.path.realpath(log))))
        self.loop(self.path("a", "run"), "--once")
        self.assertEqual(len(self.calls()), 2)

    def test_an_unfinished_one_waits(self):
        log = wb.logs(self.path("a", "run"))[0]
        with open(log, "r+b") as file:
            file.truncate(os.path.getsize(log) - 12)  # the final record is gone
        done = self.loop(self.path("a", "run"), "--once")
        self.assertEqual(len(self.calls()), 1)
        self.assertIn("1 recording(s) are left", done.stdout)
        os.utime(log, (time.time() - 4000,) * 2)
        self.loop(self.path("a", "run"), "--once", "--quiet", "3600", "--include-online")
        self.assertEqual(len(self.calls()), 2)
        self.assertIn("sync --include-online", self.calls()[1])

    def test_a_failure_is_tried_again(self):
        with open(self.path("fail"), "w"):
            pass
        done = self.loop(self.path("a", "run"), "--once")
        self.assertIn("was not uploaded", done.stderr)
        os.remove(self.path("fail"))
        self.loop(self.path("a", "run"), "--once")
        self.assertEqual(len(self.calls()), 4)


if __name__ == "__main__":
    if not ORACLE:
        print("skipped: FB3_ORACLE_WANDB names no Python with the wandb package")
        sys.exit(77)
    unittest.main(verbosity=2)
