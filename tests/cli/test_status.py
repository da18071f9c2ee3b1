"""Watching a run: the live block on a terminal, plain lines elsewhere, and `status` from outside."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
import unittest

from program import *

FOLDS = dict(TINY, train_folds="all", max_steps=40, save_strategy="no")
LONG = dict(TINY, train_folds="all", max_steps=200000, eval_strategy="steps", eval_steps=50, save_strategy="steps",
            save_steps=100)
ESCAPE = re.compile(r"\x1b\[(\d*)([A-Za-z])")


class Terminal:
    """The program on a terminal of its own: all that it wrote is `text`."""

    def __init__(self, words, width=100, rows=24, **env):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, width, 0, 0))
        settings = dict(environment(TERM="xterm", OMP_NUM_THREADS="1"), **env)
        if "NO_COLOR" not in env:
            settings.pop("NO_COLOR", None)
        self.process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=settings, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.master, self.parts = master, []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        while True:
            try:
                part = os.read(self.master, 65536)
            except OSError:
                break
            if not part:
                break
            self.parts.append(part)

    @property
    def text(self):
        return b"".join(self.parts).decode()

    def wait(self, code=0, timeout=120):
        try:
            found = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError("not finished after %d s:\n%s" % (timeout, "\n".join(screen(self.text)[-30:])))
        self.reader.join(10)
        os.close(self.master)
        if code is not None and found != code:
            raise AssertionError("exit %d instead of %d:\n%s" % (found, code, self.text))
        return self.text


def screen(text):
    """What is left to see, line by line, of what the program wrote; scrolling never matters."""
    lines, row, column = [""], 0, 0
    at = 0
    while at < len(text):
        escape = ESCAPE.match(text, at)
        if escape:
            number, kind = int(escape.group(1) or 1), escape.group(2)
            if kind == "A":
                row = max(row - number, 0)
            elif kind == "J":
                lines[row:] = [lines[row][:column]]
            elif kind != "m":
                raise AssertionError("escape sequence %r" % escape.group(0))
            at = escape.end()
            continue
        c = text[at]
        at += 1
        if c == "\r":
            column = 0
        elif c == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        else:
            lines[row] = lines[row][:column].ljust(column) + c + lines[row][column + 1:]
            column += 1
    return lines


def blocks(text):
    """The lines of each block that was drawn, colours left out."""
    drawn = re.findall(r"\r\x1b\[J\r?\n((?:[^\n]*\n)+?)\x1b\[(\d+)A", text)
    return [re.sub(r"\x1b\[\d*m", "", block).replace("\r", "").split("\n")[:-1] for block, up in drawn]


def status(*directories, code=0, **options):
    return run("status", *directories, code=code, timeout=60, **options)


def status_json(*directories):
    return json.loads(status(*directories, json=True).stdout)


class Block(ProgramTest):
    def check(self, text, width, folds, colour):
        drawn = blocks(text)
        self.assertGreater(len(drawn), 1, text)
        for block in drawn:
            self.assertEqual(len(block), folds + (folds > 1), block)
            for line in block:
                self.assertLess(len(line), width, block)
            for k in range(folds):
                self.assertRegex(block[k], r"^fold-%d " % k)
        self.assertEqual("\x1b[3" in text, colour)
        left = screen(text)
        self.assertFalse([line for line in left if re.match(r"fold-\d .*(ETA|waiting|complete)", line)], left)
        self.assertTrue([line for line in left if line.startswith("pooled")], left)
        return drawn, left

    def test_one_group(self):
        out = self.path("run")
        term = Terminal(command(["train"] + arguments(dict(FOLDS, output_dir=out, max_steps=150))), width=120)
        drawn, left = self.check(term.wait(), 120, 2, True)
        at_work = [line for block in drawn for line in block if "samples/s" in line]
        self.assertTrue(at_work, drawn)
        self.assertRegex(at_work[-1], r"^fold-\d  \[#*\.*\] +\d+/150  (\w+  )?ETA [\d:-]+  (best \d\.\d{4}  )?[\d.]+ samples/s  \d+ MB")
        evals = [line for line in left if re.match(r"fold-0  step \d+  MCRMSE \d\.\d{4}", line)]
        self.assertEqual(len(evals), len(events(out, 0, "eval")))

    def test_two_groups_under_a_launcher(self):
        """The launcher has the terminal; both groups' folds are in one block, drawn by rank 0 alone."""
        out = self.path("run")
        words = dict(FOLDS, output_dir=out, fold_groups=2, max_steps=300)
        term = Terminal(command(["train"] + arguments(words), ranks=2), width=64, NO_COLOR="1")
        drawn, left = self.check(term.wait(), 64, 2, False)
        both = [b for b in drawn if all(re.search(r" [1-9]\d*/300", line) for line in b[:2])]
        self.assertTrue(both, drawn[-3:])
        for fold in range(2):
            told = [line for line in left if line.startswith("fold-%d  step " % fold)]
            self.assertTrue(told, left)
        self.assertFalse([line for line in left if line.startswith("fold 1/2") or line.startswith("fold 2/2")], left)

    def test_narrow(self):
        term = Terminal(command(["train"] + arguments(dict(FOLDS, output_dir=self.path("run"), max_steps=60))), width=40)
        self.check(term.wait(), 40, 2, False)  # no bars, no colour

    def assertPlain(self, text):
        self.assertNotIn("\x1b", text)
        self.assertRegex(text, r"fold 1/2  40/40  epoch [\d.]+  loss [\d.]+  [\d.]+ samples/s  ETA 00:00")
        self.assertRegex(text, r"fold 2/2  step 40  epoch [\d.]+  MCRMSE \d")

    def test_plain_lines_elsewhere(self):
        with self.subTest("a pipe"):
            self.assertPlain(run("train", **dict(FOLDS, output_dir=self.path("a"))).stderr)
        with self.subTest("TERM=dumb"):
            self.assertPlain(Terminal(command(["train"] + arguments(dict(FOLDS, output_dir=self.path("b")))), TERM="dumb").wait())
        with self.subTest("a launcher that changes lines"):
            words = command(["train"] + arguments(dict(FOLDS, output_dir=self.path("c"))), ranks=1)
            self.assertPlain(Terminal(words[:1] + ["--tag-output"] + words[1:]).wait())

    def test_quiet(self):
        for ranks in (None, 2):
            with self.subTest(ranks=ranks):
                words = ["train"] + arguments(dict(FOLDS, output_dir=self.path("run%s" % ranks))) + ["--quiet"]
                text = Terminal(command(words, ranks)).wait()
                self.assertNotIn("\x1b", text)
                self.assertNotRegex(text, r"fold[- ]\d.*(step|samples/s|waiting)")

    def test_interrupt_leaves_no_block(self):
        out = self.path("run")
        term = Terminal(command(["train"] + arguments(dict(LONG, output_dir=out))))
        end = time.time() + 60
        while "samples/s" not in term.text and time.time() < end:
            time.sleep(0.1)
        os.write(term.master, b"\x03")
        left = screen(term.wait(code=-signal.SIGINT))
        self.assertFalse([line for line in left if "samples/s" in line], left)
        self.assertEqual(status_json(out)["state"], "killed")


class Running(ProgramTest):
    """A long run, seen when it has trained and evaluated."""

    def start(self, out, ranks=None, **more):
        process = start("train", ranks=ranks, **dict(LONG, output_dir=out, **more))
        self.addCleanup(self.end, process, out)
        end = time.time() + 90
        while time.time() < end and process.poll() is None:
            if os.path.exists(os.path.join(out, "run.yaml")):
                found = status_json(out)
                if any(f["step"] > 0 and f["best_metric"] for f in found["folds"]):
                    return process
            time.sleep(0.2)
        raise AssertionError("no progress: %s" % (process.communicate() if process.poll() is not None else "too slow",))

    def end(self, process, out):
        if process.poll() is None:
            kill_all(process, out)


class Status(Running):
    def test_while_it_runs_and_when_it_was_killed(self):
        out = self.path("run")
        process = self.start(out)
        found = status_json(out)
        self.assertEqual((found["run"], found["state"], found["alive"], found["alive_by"]), (out, "training", True, "lock"))
        self.assertGreater(found["eta_seconds"], 0)
        self.assertIsNone(found["pooled_MCRMSE"])
        fold = found["folds"][0]
        self.assertEqual((fold["fold"], fold["total_steps"], fold["metric"], fold["error"], fold["ranks"], fold["pid"]),
                         (0, 200000, "eval_MCRMSE", "", 1, process.pid))
        for key in ("step", "epoch", "loss", "samples_per_second", "peak_memory_mb", "seconds", "last_metric",
                    "best_metric", "best_metric_step", "last_metric_step", "eta_seconds"):
            self.assertGreater(fold[key], 0, key)
        self.assertLess(abs(fold["updated"] - time.time()), 30)
        self.assertIn(fold["state"], ("training", "evaluating", "writing"))
        self.assertEqual(found["folds"][1]["state"], "waiting")
        text = status(out).stdout
        self.assertRegex(text, r"run: training, about [\d:]+ to go; alive; last word \d\d:\d\d ago, of process %d on " % process.pid)
        self.assertRegex(text, r"\nfold-0  \[.*\] +\d+/200000 .*ETA [\d:]+  best \d\.\d{4}")
        self.assertNotIn("\x1b", text)

        time.sleep(1.2)
        self.assertGreater(status_json(out)["folds"][0]["step"], fold["step"])

        kill_all(process, out)
        found = status_json(out)
        self.assertEqual((found["state"], found["alive"], found["eta_seconds"]), ("killed", False, None))
        self.assertEqual((found["folds"][0]["state"], found["folds"][0]["eta_seconds"]), ("killed", None))
        text = status(out).stdout
        self.assertRegex(text, r"run: killed; not alive")
        self.assertIn("without a word", text)
        self.assertIn("the same command goes on", text)

    @unittest.skipIf(SANITIZED, "too slow with sanitizers")
    def test_killed_groups(self):
        out = self.path("run")
        process = self.start(out, ranks=2, fold_groups=2)
        self.assertTrue(status_json(out)["alive"])
        os.kill(pid_of_rank(out, 1), signal.SIGKILL)
        process.communicate(timeout=60)  # the launcher has the other one stop
        found = status_json(out)
        self.assertEqual((found["state"], found["alive"], found["folds"][1]["state"]), ("killed", False, "killed"))

    def test_a_stop_and_what_follows(self):
        out = self.path("run")
        process = self.start(out, max_train_samples=32)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75)
        found = status_json(out)
        self.assertEqual((found["state"], found["alive"], found["folds"][0]["state"]), ("stopped", False, "stopped"))
        self.assertIn("with a complete checkpoint: the same command goes on", status(out).stdout)

        # The next start: the ETA is of that start, the best score is kept.
        before = found["folds"][0]
        process = start("train", **dict(LONG, output_dir=out, max_train_samples=32))
        self.addCleanup(self.end, process, out)
        end = time.time() + 60
        fold = before
        while fold["step"] <= before["step"] and time.time() < end:
            time.sleep(0.2)
            fold = status_json(out)["folds"][0]
        self.assertEqual(fold["first_step"], before["step"])
        self.assertLessEqual(fold["best_metric"], before["best_metric"])
        self.assertGreater(fold["step"], before["step"])

    def test_after_the_end(self):
        out = self.path("run")
        run("train", **dict(FOLDS, output_dir=out))
        found = status_json(out)
        self.assertEqual((found["state"], found["alive"], found["notes"]), ("complete", False, []))
        self.assertAlmostEqual(found["pooled_MCRMSE"], summary(out)["pooled"]["MCRMSE"])
        for k in range(2):
            fold, last = found["folds"][k], events(out, k, "end")[-1]
            self.assertEqual((fold["state"], fold["step"], fold["eta_seconds"]), ("complete", 40, None))
            self.assertAlmostEqual(fold["best_metric"], last["best_metric"], places=6)
        self.assertRegex(status(out).stdout, r"run: complete, MCRMSE \d\.\d{4}; not alive")
        self.assertFalse([n for n in os.listdir(os.path.join(out, "fold-0")) if n.endswith(".tmp")])

        # A last word that a crash has taken: the next start knows better.
        with open(os.path.join(out, "fold-1", "progress.json"), "w") as file:
            file.write('{"fold":1,')
        found = status_json(out)
        self.assertEqual([f["state"] for f in found["folds"]], ["complete", "waiting"])
        self.assertIn("fold-1/progress.json is damaged", found["notes"][0])
        self.assertIn("fold-1/progress.json is damaged", status(out).stdout)
        run("train", **dict(FOLDS, output_dir=out))
        found = status_json(out)
        self.assertEqual((found["state"], found["notes"]), ("complete", []))
        self.assertEqual(found["folds"][1]["step"], 40)

    def test_a_failure(self):
        out = self.path("run")
        run("train", code=1, learning_rate=1, max_grad_norm=0, max_nonfinite_steps=1, weight_decay=10,
            **{k: v for k, v in dict(FOLDS, output_dir=out, max_steps=2000, eval_strategy="no", warmup_ratio=0).items()
               if k != "learning_rate"})
        found = status_json(out)
        self.assertEqual((found["state"], found["folds"][0]["state"]), ("failed", "failed"))
        self.assertIn("not finite", found["folds"][0]["error"])
        self.assertIn("Fold 0 failed: the gradient was not finite", status(out).stdout)

    def test_several_and_seeds(self):
        one, seeds = self.path("one"), self.path("seeds")
        short = dict(FOLDS, max_steps=4)
        run("train", **dict(short, output_dir=one))
        run("train", seeds="10,9", **dict(short, output_dir=seeds))
        found = status_json(one, seeds)
        self.assertEqual([r["run"] for r in found["runs"]], [one, seeds + "/seed-9", seeds + "/seed-10"])
        self.assertEqual({r["state"] for r in found["runs"]}, {"complete"})
        text = status(one, seeds).stdout
        self.assertEqual(len(re.findall(r": complete, MCRMSE", text)), 3)
        quiet = status(one, seeds, quiet=True).stdout
        self.assertEqual(len(quiet.splitlines()), 3)

    def test_what_is_no_run(self):
        os.mkdir(self.path("empty"))
        for directory in (self.path("empty"), self.path("missing"), TRAIN):
            line = self.assertOneLine(status(directory, code=2))
            self.assertIn("holds no run", line)
        self.assertOneLine(run("status", code=2, cwd=self.path("empty")))  # ./outputs


class Watch(Running):
    def test_ends_with_the_run(self):
        out = self.path("run")
        process = self.start(out)
        watch = start("status", out, watch=True)
        text = Terminal(command(["status", out, "--watch"]), width=60)
        lines = start("status", out, watch=True, json=True)
        time.sleep(5)
        self.assertIsNone(watch.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual((process.communicate(timeout=60), process.returncode)[1], 75)
        said = watch.communicate(timeout=30)[0]
        self.assertEqual(watch.returncode, 0)
        self.assertNotIn("\x1b", said)
        self.assertGreaterEqual(len(re.findall(r"run: training", said)), 2)
        self.assertEqual(len(re.findall(r"run: stopped", said)), 1)
        states = [json.loads(line)["state"] for line in lines.communicate(timeout=30)[0].splitlines()]
        self.assertEqual((states[0], states[-1], states.count("stopped")), ("training", "stopped", 1))

        left = screen(text.wait())
        self.assertIn("\x1b[", text.text)
        for line in left:
            self.assertLess(len(line), 60)
        self.assertEqual(len([line for line in left if line.startswith("fold-0")]), 1, left)
        self.assertFalse([line for line in left if ": training" in line], left)

    def test_of_a_run_that_has_ended(self):
        out = self.path("run")
        run("train", **dict(FOLDS, output_dir=out, max_steps=4))
        started = time.time()
        self.assertEqual(len(re.findall("complete, MCRMSE", status(out, watch=True).stdout)), 1)
        self.assertLess(time.time() - started, 10)


if __name__ == "__main__":
    unittest.main()
