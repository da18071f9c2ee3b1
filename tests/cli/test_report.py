"""report.html: of a real run, and of run directories that are made up to be difficult. Every page is parsed as XML, has
every section, fetches nothing, runs nothing, and stays small."""

import csv
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import time
import unittest
import xml.etree.ElementTree

from browser import HEADLESS, accessibility_tree, chromium
from program import *

SECTIONS = ["scores", "training", "predictions", "lengths", "time", "configuration"]
LARGEST_PAGE = 1000000
SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"


def made_up_run(folder, folds=2, targets=TARGETS, steps=40, epochs=4, essays=60, evaluated=True, ended=True,
                loss=lambda step: 2.0 / step, ident="essay-%d".__mod__, tables=True, logged_every=1, pred=None):
    """A run directory as the program leaves it, without its checkpoints and data set."""
    rng = random.Random(7)
    os.makedirs(folder)
    with open(os.path.join(folder, "run.yaml"), "w") as f:
        f.write("train_file: train.csv\nlabel_columns: %s\nfolds: %d\ntotal_train_batch_size: 8\n"
                % (json.dumps(targets), max(folds, 1)))
    for k in range(folds):
        os.makedirs(os.path.join(folder, "fold-%d" % k))
        with open(os.path.join(folder, "fold-%d" % k, "metrics.jsonl"), "w") as f:
            put = lambda **event: f.write(json.dumps(event) + "\n")
            put(event="run", fold=k, folds=folds, world_size=1, ranks=1, device="cpu", parameters=1000,
                active_vocabulary=100, total_steps=steps, train_samples=8 * steps, eval_samples=essays,
                versions={"fb3-dist": "0"}, config="")
            for step in range(1, steps + 1):
                if step % logged_every == 0:
                    value = loss(step)
                    put(event="step", fold=k, step=step, epoch=step * epochs / steps,
                        loss=None if value is None or not math.isfinite(value) else value * (1 + 0.1 * rng.random()),
                        grad_norm=None if value is None else rng.expovariate(1.0) + 0.01, skipped=value is None,
                        learning_rate=1e-5 * step / steps, samples_per_second=50 + 10 * rng.random(),
                        tokens_per_second=1000.0, peak_memory_mb=100.0 + step)
                if evaluated and step % max(steps // epochs, 1) == 0:
                    put(event="eval", fold=k, step=step, epoch=step * epochs / steps, eval_loss=0.3,
                        eval_MCRMSE=0.7 - 0.1 * step / steps + 0.02 * rng.random(), eval_samples_per_second=200.0)
            if ended:
                put(event="end", fold=k, step=steps, train_runtime=steps * 0.2, train_samples_per_second=40.0,
                    train_steps_per_second=5.0, best_metric=0.6, best_model_checkpoint="best.h5")
        if tables and evaluated:
            with open(os.path.join(folder, "fold-%d" % k, "oof.csv"), "w", newline="", encoding="utf-8") as f:
                table = csv.writer(f)
                table.writerow(["text_id", "fold"] + targets + ["pred_" + t for t in targets])
                for i in range(essays):
                    skill = rng.gauss(3.2, 0.6)
                    truth = [min(5.0, max(1.0, round(2 * rng.gauss(skill, 0.4)) / 2)) for _ in targets]
                    said = [pred(t) if pred else 3.2 + 0.6 * (skill - 3.2) + rng.gauss(0, 0.25) for t in truth]
                    table.writerow([ident(k * essays + i), k] + truth + said)


class Page:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.text = f.read()
        head, self.body = self.text.split("\n", 1)
        assert head == "<!DOCTYPE html>", head
        self.tree = xml.etree.ElementTree.fromstring(self.body)
        self.words = " ".join("".join(self.tree.find(HTML + "body").itertext()).split())

    def all(self, name, space=HTML):
        return list(self.tree.iter(space + name))

    def table(self, caption):
        """Rows of the first table whose caption begins so: name -> cells."""
        for table in self.all("table"):
            if "".join(table.find(HTML + "caption").itertext()).startswith(caption):
                return {"".join(r.find(HTML + "th").itertext()): ["".join(d.itertext()) for d in r.findall(HTML + "td")]
                        for r in table.find(HTML + "tbody")}
        raise AssertionError("no table " + caption)


class ReportTest(ProgramTest):
    def check(self, path, sections=SECTIONS):
        page = Page(path)
        self.assertLess(len(page.text), LARGEST_PAGE)
        self.assertEqual([s.get("id") for s in page.all("section")], sections)
        self.assertFalse(page.all("script") + page.all("link") + page.all("img") + page.all("iframe"))
        for element in page.tree.iter():
            for name, value in element.attrib.items():
                self.assertFalse(name.startswith("on"), name)
                if name in ("src", "href", "action", "data", "style"):
                    self.assertTrue(value.startswith("#"), (name, value))
        self.assertNotIn("url(", page.text)
        self.assertNotIn("@import", page.text)
        ids = [e.get("id") for e in page.tree.iter() if e.get("id")]
        self.assertEqual(len(ids), len(set(ids)))
        for element in page.tree.iter():  # what names or describes something is there
            for attribute in ("aria-labelledby", "aria-describedby"):
                if element.get(attribute):
                    self.assertIn(element.get(attribute), ids)
        for svg in page.all("svg", SVG):
            self.assertTrue(svg.get("aria-hidden") == "true" or svg.find(SVG + "title").text, svg.attrib)
        levels = [int(e.tag[-1]) for e in page.tree.iter() if re.fullmatch(re.escape(HTML) + "h[1-6]", e.tag)]
        self.assertEqual(levels[0], 1)
        self.assertTrue(all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels)
        self.assertEqual(levels.count(1), 1)
        numbers = re.findall(r'(?:d|points|x|y|cx|cy|width|height)="([^"]*)"', page.body)
        self.assertFalse([n for n in numbers if re.search(r"nan|inf", n)])
        return page

    def report(self, *runs, **options):
        run("report", *runs, **options)
        return self.check(os.path.join(runs[0], "report.html"))


class RealRun(ReportTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="fb3-report-")
        cls.directory = os.path.join(cls.folder, "run")
        cls.output = run("train", **dict(TINY, folds=3, train_folds="all", max_steps=-1, num_train_epochs=2,
                                         max_eval_samples=1000, output_dir=cls.directory))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def setUp(self):
        pass

    def test_training_leaves_the_page_of_its_files(self):
        page = self.check(os.path.join(self.directory, "report.html"))
        self.assertIn("The run is complete: 3 of 3 folds", page.words)
        self.assertNotIn("warning: report.html", self.output.stderr)
        again = self.report(self.directory)
        made = re.compile("Made at [^<]*")
        self.assertEqual(made.sub("", page.text), made.sub("", again.text))

    def test_scores_are_those_of_the_summary(self):
        page = self.report(self.directory)
        with open(os.path.join(self.directory, "summary.json")) as f:
            summary = json.load(f)
        table = page.table("Root mean squared error")
        told = [("pooled", summary["pooled"]), ("mean predictor", summary["mean_predictor"])]
        told += [("fold %d" % s["fold"], s) for s in summary["folds"]]
        for name, scores in told:
            expected = [str(scores["samples"])] + ["%.4f" % scores["MCRMSE"]]
            expected += ["%.4f" % scores[t.upper() + "_RMSE"] for t in TARGETS]
            self.assertEqual([c.replace(",", "") for c in table[name]], expected, name)

    def test_memory_by_its_parts(self):
        event = events(self.directory, 0, "run")[0]
        memory, values = event["memory_bytes"], 4 * event["parameters"]
        self.assertEqual(memory["moments"], 2 * memory["gradients"])
        self.assertLess(memory["gradients"], values)  # of the word table only the rows whose tokens occur
        self.assertGreater(memory["gradients"], values / 2)
        self.assertGreater(min(memory.values()), 0)
        table = self.report(self.directory).table("Memory of a rank by its parts")
        self.assertEqual(len(table), len(memory) + 1)
        self.assertAlmostEqual(sum(float(cells[1]) for name, cells in table.items() if name != "together"), 100, delta=0.3)
        self.assertEqual(table["moments of AdamW"][0], self.size(memory["moments"]))
        self.assertEqual(table["together"], [self.size(sum(memory.values())), "100.0"])

    @staticmethod
    def size(value):
        value, unit = (value / 1e6, "MB") if value >= 1e6 else (value / 1e3, "kB")
        return "%.*f %s" % (value < 100, value, unit)

    def test_the_worst_essays(self):
        every = [(math.sqrt(sum((float(r[t]) - float(r["pred_" + t])) ** 2 for t in TARGETS) / 6), r["text_id"])
                 for r in rows(os.path.join(self.directory, "oof.csv"))]
        worst = [i for _, i in sorted(every, reverse=True)[:20]]
        self.assertEqual(list(self.report(self.directory).table("Error: root mean square")), worst)

    def test_lengths_come_from_the_data_set(self):
        page = self.report(self.directory)
        self.assertEqual(sum(int(r[0].replace(",", "")) for r in page.table("Essays by length").values()), len(rows(TRAIN)))
        self.assertIn("max_length 64 cut", page.words)
        scored = sum(int(r[0].replace(",", "")) for r in page.table("MCRMSE by length").values())
        self.assertEqual(scored, len(rows(os.path.join(self.directory, "oof.csv"))))
        for essay in page.table("Error: root mean square").values():
            self.assertTrue(3 <= int(essay[1]) <= 64, essay)

    def test_another_place_for_the_page(self):
        run("report", self.directory, output=self.folder + "/page.html")
        self.check(self.folder + "/page.html")

    def test_without_a_name_it_is_the_usual_directory(self):
        os.makedirs(self.folder + "/here")
        os.symlink(self.directory, self.folder + "/here/outputs")
        os.remove(self.directory + "/report.html")
        run("report", cwd=self.folder + "/here")
        self.check(self.directory + "/report.html")

    def test_runs_side_by_side(self):
        other = self.folder + "/other <b>"
        made_up_run(other, folds=5)
        run("report", self.directory, other, self.directory, cwd=self.folder)
        page = self.check(self.folder + "/comparison.html", ["scores", "training", "time", "configuration"])
        self.assertIn("3 runs side by side", page.words)
        self.assertIn(other, page.table("Out of fold"))
        self.assertIn("folds", page.table("Keys that differ"))
        run("report", self.directory, self.directory, cwd=self.folder, output="two.html")
        self.assertIn("The configurations are the same", self.check(self.folder + "/two.html", SECTIONS[:2] + SECTIONS[4:]).words)

    def test_no_run_is_an_error(self):
        done = run("report", self.folder, code=2)
        self.assertIn("run.yaml", self.assertOneLine(done))


class DuringARun(ReportTest):
    def test_killed(self):
        out = self.path("run")
        process = start("train", **dict(TINY, max_steps=100000, logging_steps=1, output_dir=out))
        while steps_done(out) < 3:
            time.sleep(0.05)
        page = self.report(out)  # while it runs
        self.assertIn("not complete", page.words)
        kill_all(process, out)
        self.assertIn("not complete", self.report(out).words)

    def test_by_a_run_and_its_users(self):
        """Three write the page again and again; none of them takes another's half."""
        out = self.path("run")
        process = start("train", **dict(TINY, max_steps=100000, eval_strategy="steps", eval_steps=1, output_dir=out))
        while not os.path.exists(self.path("run", "report.html")):
            time.sleep(0.05)
            self.assertIsNone(process.poll())
        for _ in range(20):
            users = [start("report", out) for _ in range(2)]
            for user in users:
                _, said = user.communicate()
                self.assertEqual(user.returncode, 0, said)
            self.check(self.path("run", "report.html"))
        self.assertIsNone(process.poll())
        kill_all(process, out)

    def test_stopped_on_a_signal(self):
        out = self.path("run")
        process = start("train", **dict(TINY, max_steps=100000, eval_strategy="steps", eval_steps=2, output_dir=out))
        while not os.path.exists(self.path("run", "report.html")):  # after the first evaluation
            time.sleep(0.05)
            self.assertIsNone(process.poll())
        self.check(self.path("run", "report.html"))
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, stderr)
        self.assertIn("stopped after step", stderr.strip().split("\n")[-1])
        page = self.check(self.path("run", "report.html"))
        step = int(page.table("Progress of the folds")["fold 0"][1].replace(",", ""))
        self.assertEqual(step, steps_done(out))

    def test_a_page_that_cannot_be_written_stops_nothing(self):
        out = self.path("run")
        os.makedirs(self.path("run", "report.html"))
        done = run("train", **dict(TINY, output_dir=out))
        self.assertEqual(done.stderr.count("warning: report.html"), 1, done.stderr)
        self.assertTrue(os.path.exists(self.path("run", "summary.json")))

    def test_groups_of_ranks(self):
        out = self.path("run")
        run("train", ranks=2, **dict(TINY, train_folds="all", fold_groups=2, output_dir=out))
        page = self.check(self.path("run", "report.html"))
        self.assertIn("2 of 2 folds", page.words)


class MadeUp(ReportTest):
    def made_up(self, **how):
        made_up_run(self.path("run"), **how)
        return self.report(self.path("run"))

    def test_without_evaluation(self):
        page = self.made_up(folds=1, evaluated=False)
        self.assertIn("All essays were trained on", page.words)
        self.assertIn("No evaluation is logged yet", page.words)

    def test_one_target(self):
        page = self.made_up(targets=["score"])
        self.assertIn("There is one target", page.words)

    def test_64_targets_100_folds(self):
        names = ["target number %d with a long name" % i for i in range(64)]
        page = self.made_up(targets=names, folds=100, steps=30, essays=5)
        self.assertIn("fold 99", page.words)

    def test_one_epoch_one_step(self):
        page = self.made_up(steps=1, epochs=1, essays=1)
        self.assertEqual(page.table("Progress of the folds")["fold 1"][1:3], ["1", "1"])

    def test_not_finite(self):
        page = self.made_up(loss=lambda step: None if step % 3 else 1.0)
        self.assertIn("steps whose value was not finite", page.words)
        self.assertEqual(page.table("Progress of the folds")["fold 0"][-1], "27")

    def test_never_finite(self):
        page = self.made_up(loss=lambda step: None)
        self.assertEqual(page.table("Loss")["fold 0"][0], "\u2013")

    def test_empty_logs(self):
        made_up_run(self.path("run"))
        for k in range(2):
            open(self.path("run", "fold-%d" % k, "metrics.jsonl"), "w").close()
            os.remove(self.path("run", "fold-%d" % k, "oof.csv"))
        page = self.report(self.path("run"))
        self.assertIn("No step is logged yet", page.words)
        self.assertIn("No fold has been evaluated yet", page.words)

    def test_nothing_but_a_configuration(self):
        page = self.made_up(folds=0)
        self.assertIn("No fold has begun yet", page.words)

    def test_damaged_files_are_told(self):
        made_up_run(self.path("run"))
        with open(self.path("run", "fold-0", "metrics.jsonl"), "r+") as f:
            f.seek(400)
            f.write("\0\0garbage\n{\"event\": 3}\n[]\n{}\n")
        with open(self.path("run", "fold-1", "metrics.jsonl"), "a") as f:
            f.write("{\"event\": \"step\", \"step\": 9223372036854775807, \"loss\": 1e308}\n{\"event\":\"st")
        with open(self.path("run", "fold-1", "oof.csv"), "a") as f:
            f.write("x,1,not a number\n")
        with open(self.path("run", "summary.json"), "w") as f:
            f.write("{")
        with open(self.path("run", "data.h5"), "w") as f:
            f.write("\x89HDF")
        page = self.report(self.path("run"))
        for words in ["lines are not events", "summary.json cannot be read", "fold-1/oof.csv", "data.h5"]:
            self.assertIn(words, page.words)
        self.assertEqual(page.table("Root mean squared error")["fold 1"][0], "60")

    def test_a_long_run_is_thinned(self):
        spike = 77777
        page = self.made_up(folds=5, steps=100000, epochs=10, essays=20,
                            loss=lambda step: 9.25 if step == spike else 1 / math.sqrt(step))
        self.assertGreater(float(page.table("Loss")["fold 0"][4]), 9)  # no peak is lost
        self.assertEqual(page.table("Loss")["fold 0"][5], "77,777")
        self.assertLess(len(page.text), 600000)

    def test_few_steps_are_logged(self):
        self.made_up(steps=5000, logged_every=500)

    def test_hostile_texts(self):
        texts = ["<script>alert(1)</script>", "\"'><svg onload=alert(1)>", "&amp;&lt;", "\u202egnp.exe", "]]>", "--><!--",
                 "a\tb", "x" * 1000, "\u4f60\u597d", "\U0001f600", "javascript:alert(1)", "</style></title>", "\ufffe"]
        targets = ["<b>bold</b>", "a&b", "\"quoted\" 'name'", "\u00e9\u00e8 </desc>"]
        page = self.made_up(targets=targets, ident=lambda i: texts[i] if i < len(texts) else "e%d" % i, essays=13,
                            pred=lambda t: t + 0.5)
        self.assertFalse([e for e in page.tree.iter() if e.tag.endswith("script")])
        self.assertIn("<b>bold</b>", page.words)

    def test_strange_scores(self):
        for n, pred in enumerate([lambda t: t, lambda t: 3.0, lambda t: 1e30 if t > 4.5 else t, lambda t: -t, lambda t: 1e-30]):
            made_up_run(self.path("run%d" % n), pred=pred)
            self.report(self.path("run%d" % n))


@unittest.skipUnless(chromium(), "no headless Chromium here")
class Browser(ReportTest):
    def test_what_a_screen_reader_is_told(self):
        made_up_run(self.path("run"))
        self.report(self.path("run"))
        nodes = accessibility_tree(self.path("run", "report.html"), self.path("profile"))
        told = lambda role: [node for node in nodes if node["role"] == role]
        for landmark in ["banner", "navigation", "main"]:
            self.assertEqual(len(told(landmark)), 1, landmark)
        self.assertEqual(len(told("link")), len(SECTIONS))
        self.assertGreaterEqual(len(told("image")), 14)
        for image in told("image"):
            self.assertTrue(image["name"] and image["description"], image)
        tables = told("table")
        self.assertGreaterEqual(len(tables), 5)
        self.assertEqual(len({table["name"] for table in tables if table["name"]}), len(tables), tables)
        levels = [node["level"] for node in told("heading")]
        self.assertEqual(levels[0], 1)
        for level, before in zip(levels[1:], levels):
            self.assertTrue(2 <= level <= before + 1, levels)

    def test_it_is_shown_without_a_complaint(self):
        made_up_run(self.path("run"))
        self.report(self.path("run"))
        shot = self.path("shot.png")
        for look in [[], ["--blink-settings=preferredColorScheme=0"]]:
            done = subprocess.run([chromium()] + HEADLESS + look +
                                  ["--enable-logging=stderr", "--v=0", "--user-data-dir=" + self.path("profile"),
                                   "--window-size=390,844", "--screenshot=" + shot, "file://" + self.path("run", "report.html")],
                                  capture_output=True, text=True, timeout=100)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("CONSOLE", done.stderr)
            self.assertGreater(os.path.getsize(shot), 10000)


if __name__ == "__main__":
    unittest.main()
