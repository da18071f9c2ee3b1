"""What the start of a job costs as ranks are added: calls of MPI, messages, files that are opened.

Counted in the real program up to the end of its first step, with ranks that outnumber the cores; times would say
nothing here. FB3_COUNT_LIBRARY is count.c.
"""

import glob
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from program import *

LIBRARY = os.environ["FB3_COUNT_LIBRARY"]
RANKS = (2, 4, 8, 16)
MESSAGES = {"Send", "Ssend", "Isend", "Issend"}
MODEL_FILES = {"config.json", "model.safetensors", "spm.model", "tokenizer_config.json", "added_tokens.json"}


@unittest.skipIf(SANITIZED, "sanitizers want to be loaded first")
class Start(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.model = tempfile.mkdtemp(prefix="fb3-test-")
        cls.addClassCleanup(shutil.rmtree, cls.model, ignore_errors=True)
        out = os.path.join(cls.model, "run")
        run("train", **dict(TINY, folds=1, train_folds="all", max_steps=1, output_dir=out))
        run("export", os.path.join(out, "fold-0", "best.h5"), output=os.path.join(cls.model, "hf"))

    def launch(self, ranks, options=(), env={}, **more):
        out = self.path("run-%d" % ranks)
        settings = {k: v for k, v in TINY.items() if k not in ("model_preset", "init", "tokenizer")}
        settings.update(model_name_or_path=os.path.join(self.model, "hf"), output_dir=out, folds=1, train_folds="all",
                        max_steps=1, per_device_train_batch_size=1, total_train_batch_size=ranks, save_strategy="no",
                        quiet=True)
        settings.update(more)
        words = ["mpirun", "--oversubscribe", "-np", str(ranks), *options, PROGRAM, "train"] + arguments(settings)
        done = subprocess.run(words, env=environment(OMP_NUM_THREADS="1", **env), capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def count(self, ranks, **more):
        """[(call -> count, file -> count)] by rank."""
        folder = self.path("counts-%d" % ranks)
        os.mkdir(folder)
        self.launch(ranks, ["-x", "LD_PRELOAD=" + LIBRARY], {"FB3_COUNT_DIR": folder}, **more)
        table = []
        for rank in range(ranks):
            calls, files = {}, {}
            with open(os.path.join(folder, str(rank))) as lines:
                for line in lines:
                    name, rest = line.rstrip("\n").split(" ", 1)
                    if name == "open":
                        number, path = rest.split(" ", 1)
                        files[path] = int(number)
                    elif name != "sum":
                        calls[name] = int(rest)
            table.append((calls, files))
        return table

    def openers(self, table, name):
        return [rank for rank, (_, files) in enumerate(table) if any(os.path.basename(p) == name for p in files)]

    def test_calls_and_files(self):
        collectives, rounds = set(), set()
        for ranks in RANKS:
            table = self.count(ranks)
            for calls, files in table:
                # the same calls on every rank, however many there are ...
                collectives.add(tuple(sorted((k, n) for k, n in calls.items() if k not in MESSAGES)))
                # ... and messages of ours in log2(ranks) rounds
                messages = sum(calls.get(k, 0) for k in MESSAGES)
                rounds.add(messages / math.log2(ranks))
            for name in MODEL_FILES:
                self.assertEqual(self.openers(table, name), [0], name)
            for name in ("train.csv", "run.yaml", "best.h5.tmp"):
                self.assertLessEqual(set(self.openers(table, name)), {0}, name)
            self.assertEqual(self.openers(table, "data.h5"), list(range(ranks)))  # each rank reads its own samples
            ours = {p: n for p, n in table[-1][1].items() if p.startswith((self.folder, self.model, SOURCE))}
            self.assertEqual([os.path.basename(p) for p in ours], ["data.h5"], ours)
        self.assertEqual(len(collectives), 1, collectives)
        self.assertEqual(len(rounds), 1, rounds)
        print("calls of each rank: %s; messages: %d log2(ranks)" % (dict(collectives.pop()), rounds.pop()), flush=True)

    def test_weights_are_read_once_in_each_group(self):
        table = self.count(4, folds=2, fold_groups=2)
        self.assertEqual(self.openers(table, "model.safetensors"), [0, 2])
        self.assertEqual(self.openers(table, "spm.model"), [0])

    def test_messages(self):
        """All messages, those inside of MPI's collectives too, by Open MPI's monitoring."""
        if "MCA pml: monitoring" not in subprocess.run(["ompi_info"], capture_output=True, text=True).stdout:
            self.skipTest("this Open MPI has no monitoring component")
        total = {}
        for ranks in (8, 16, 32):
            folder = self.path("messages-%d" % ranks)
            os.mkdir(folder)
            # the monitoring of windows is left out: it does not know shared ones
            settings = {"osc": "^monitoring", "pml_monitoring_enable": "2", "pml_monitoring_enable_output": "3",
                        "pml_monitoring_filename": os.path.join(folder, "of")}
            self.launch(ranks, [w for k, v in settings.items() for w in ("--mca", k, v)])
            by_rank = {}
            for path in glob.glob(os.path.join(folder, "*.prof")):
                with open(path) as lines:
                    for words in (line.split() for line in lines):
                        if words and words[0] in ("E", "I"):  # the program's own, and those of the library
                            by_rank[words[1]] = by_rank.get(words[1], 0) + int(words[words.index("msgs") - 1])
            self.assertEqual(len(by_rank), ranks)
            total[ranks] = sum(by_rank.values())
            print("%d ranks: %d messages, at most %d of a rank" % (ranks, total[ranks], max(by_rank.values())), flush=True)
        for ranks in (8, 16):
            self.assertLess(total[2 * ranks] / total[ranks], 3)  # ranks log2 ranks: 2.67 and 2.5; ranks^2: 4


if __name__ == "__main__":
    unittest.main(verbosity=2)
