"""Data larger than memory: what a rank holds does not grow with the number of samples, but for 16 bytes of each on every
node. Made-up essays of a few words in two files, from the CSV to the table of scores.

FB3_LARGE_ROWS: how many samples (tests/soak/large: 10^7)."""

import csv
import os
import threading
import unittest

from program import *

SMALL, LARGE = 10 ** 4, int(os.environ.get("FB3_LARGE_ROWS", 5 * 10 ** 5))
BYTES_A_SAMPLE, SLACK_MB = 16, 40  # the slack, of each rank: buffers and HDF5's caches, which a small data set does not fill
RUN = dict(TINY, max_steps=4, max_length=8, folds=3, learning_rate=1e-4, total_train_batch_size=64, per_device_train_batch_size=32,
           per_device_eval_batch_size=256)
DROPPED = ("max_train_samples", "max_eval_samples", "train_file")
LIMIT = 7200  # seconds


def write_essays(path, first, count):
    words = "the a of in on cat dog sat ran home tree red blue old new and or".split()
    with open(path, "w", newline="") as file:
        file.write("text_id,full_text,%s\n" % ",".join(TARGETS))
        for i in range(first, first + count):
            chosen = " ".join(words[i // 17 ** k % 17] for k in range(3 + i % 3))
            file.write("E%09d,%s %d,%s\n" % (i, chosen, i % 97, ",".join("%.1f" % (1 + (i // 9 ** y) % 9 / 2) for y in range(6))))


def peak_mb(*words, **options):
    """The largest resident memory of the one process."""
    process = subprocess.Popen(command(list(words) + arguments(options)), env=environment(OMP_NUM_THREADS="2"), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise AssertionError(output)
    return usage.ru_maxrss / 1024


class Watch(threading.Thread):
    """The largest sum over ranks of what each holds; memory that ranks share is divided among them (PSS)."""

    def __init__(self, out):
        super().__init__(daemon=True)
        self.out, self.peak, self.ended = out, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.05):
            total = 0
            for pid in pids_of(self.out):
                try:
                    with open("/proc/%d/smaps_rollup" % pid) as file:
                        total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
                except OSError:
                    pass  # it has ended
            self.peak = max(self.peak, total / 1024)


@unittest.skipIf(SANITIZED, "sanitizers keep freed memory")
class Large(ProgramTest):
    def essays(self, n):
        paths = [self.path("%d-%d.csv" % (n, part)) for part in range(2)]
        write_essays(paths[0], 0, n // 2)
        write_essays(paths[1], n // 2, n - n // 2)
        return paths

    def grown(self, what, small, large, ranks):
        allowed = BYTES_A_SAMPLE * (LARGE - SMALL) / 1e6 + SLACK_MB * ranks
        grown = large - small
        print("%s: %.0f MB with 10^4 samples, %.0f MB with %d: %.1f bytes a sample more" %
              (what, small, large, LARGE, grown * 2 ** 20 / (LARGE - SMALL)), flush=True)
        self.assertLess(grown, allowed, what)

    def test_memory(self):
        options = {k: v for k, v in RUN.items() if k not in DROPPED}
        peaks = {}
        for n in SMALL, LARGE:
            paths = self.essays(n)
            prepared = [path[:-4] + ".h5" for path in paths]
            both = self.path("both-%d.h5" % n)
            peak = {"prepare, 1 rank": peak_mb("prepare", train_file=",".join(paths), tokenizer=SPM, max_length=8, output=both)}
            for path, data in zip(paths, prepared):
                run("prepare", train_file=path, tokenizer=SPM, max_length=8, output=data, timeout=LIMIT)
                os.remove(path)
            out = self.path("alone-%d" % n)
            peak["train, 1 rank"] = peak_mb("train", train_file=both, output_dir=out, **options)
            watch, out = Watch(self.path("two-%d" % n)), self.path("two-%d" % n)
            watch.start()
            run("train", ranks=2, train_file=",".join(prepared), output_dir=out, timeout=LIMIT, **options)
            watch.ended.set()
            watch.join()
            peak["train, 2 ranks of a node together"] = watch.peak
            self.compare(self.path("alone-%d" % n), out, n)
            peaks[n] = peak
            for path in prepared + [both]:
                os.remove(path)
        for what in peaks[SMALL]:
            self.grown(what, peaks[SMALL][what], peaks[LARGE][what], 2 if "2 ranks" in what else 1)

    def compare(self, alone, together, n):
        """One file or two are the same data set; every sample of the fold is in the table."""
        first, second = (summary(out) for out in (alone, together))
        self.assertEqual(first["folds"][0]["samples"], second["folds"][0]["samples"])
        self.assertLessEqual(abs(first["folds"][0]["samples"] - n / 3), 1)
        self.assertAlmostEqual(first["pooled"]["MCRMSE"], second["pooled"]["MCRMSE"], places=4)
        with open(os.path.join(together, "folds.csv")) as folds, open(os.path.join(together, "oof.csv")) as table:
            expected = (row["text_id"] for row in csv.DictReader(folds) if row["fold"] == "0")
            for row in csv.DictReader(table):
                self.assertEqual(row["text_id"], next(expected))
            self.assertIsNone(next(expected, None))


if __name__ == "__main__":
    unittest.main(verbosity=2)
