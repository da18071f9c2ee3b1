"""Storage that fails: too small, full, read-only. What is lost is at most what came after the last complete checkpoint."""

import os
import re
import subprocess
import time
import unittest

from program import *

SAVING = dict(TINY, max_steps=40, save_strategy="steps", save_steps=2, eval_strategy="no")


def mount(*words):
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


@unittest.skipIf(SANITIZED, "too slow with sanitizers")
@unittest.skipUnless(os.geteuid() == 0, "needs root, to mount small file systems")
class Storage(ProgramTest):
    def disk(self, size):
        """A file system of that size; skips where nothing may be mounted (a container)."""
        place = self.path("disk")
        os.makedirs(place)
        if not mount("-t", "tmpfs", "-o", "size=" + size, "none", place):
            self.skipTest("no file system can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", place])
        return place

    def test_too_small(self):
        out = os.path.join(self.disk("3m"), "run")
        done = run("train", ranks=2, code=1, **dict(SAVING, output_dir=out))
        self.assertRegex(done.stderr, r"the checkpoints of 1 fold\(s\) need \d+\.\d MB more, and its file system has \d\.\d MB")
        self.assertFalse(os.path.exists(os.path.join(out, "run.yaml")))

    def test_dry_run_says_what_is_needed(self):
        done = run("train", dry_run=True, **dict(SAVING, output_dir=self.path("dry")))
        self.assertRegex(done.stdout, r"disk per fold +\d+\.\d+ GB at most while it trains, \d+\.\d+ GB when it is complete")

    def test_what_is_needed_is_enough(self):
        """The program's own figure: a file system a little larger than it asks for is large enough to the end."""
        place = self.disk("3m")
        out = os.path.join(place, "run")
        done = run("train", code=1, **dict(SAVING, output_dir=out))
        needed = float(re.search(r"need (\d+\.\d) MB", done.stderr).group(1))
        self.assertTrue(mount("-o", "remount,size=%dk" % (1000 * needed * 1.15 + 1500), place))
        run("train", **dict(SAVING, output_dir=out))

    def test_full_while_training(self):
        place = self.disk("64m")
        out, whole = os.path.join(place, "run"), self.path("whole")
        run("train", **dict(SAVING, output_dir=whole))
        process = start("train", ranks=2, **dict(SAVING, output_dir=out))
        last = os.path.join(out, "fold-0", "last.h5")
        while not os.path.exists(last) and process.poll() is None:
            time.sleep(0.02)
        with open(os.path.join(place, "filler"), "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"\0" * 65536)
            except OSError:
                pass
        _, said = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, said)
        self.assertIn("No space left on device", said)
        run("inspect", last)  # complete
        os.remove(os.path.join(place, "filler"))
        run("train", **dict(SAVING, output_dir=out))
        for u, v in zip(losses(out), losses(whole)):
            self.assertLess(abs(u - v) / abs(v), 1e-4)
        self.assertEqual(len(losses(out)), 40)

    def test_read_only(self):
        place = self.disk("64m")
        self.assertTrue(mount("-o", "remount,ro", place))
        done = run("train", ranks=2, code=None, **dict(SAVING, output_dir=os.path.join(place, "run")))
        self.assertIn(done.returncode, (1, 2))
        self.assertIn("Read-only file system", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
