"""Storage that fails: too small, full, over its quota, read-only. What is lost is at most what came after the last complete
checkpoint."""

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

    def assertFailsAndContinues(self, out, cause, break_it, mend_it):
        """A run whose storage breaks after its first checkpoint ends, says why, and goes on when it is mended."""
        whole = self.path("whole")
        run("train", ranks=2, **dict(SAVING, output_dir=whole))
        process = start("train", ranks=2, **dict(SAVING, output_dir=out))
        last = os.path.join(out, "fold-0", "last.h5")
        while not os.path.exists(last) and process.poll() is None:
            time.sleep(0.02)
        break_it()
        began = time.time()
        _, said = process.communicate(timeout=60)
        seconds, reached = time.time() - began, steps_done(out)
        self.assertEqual(process.returncode, 1, said)
        self.assertIn(cause, said)
        run("inspect", last)  # complete
        mend_it()
        again = run("train", ranks=2, **dict(SAVING, output_dir=out))
        self.assertEqual(losses(out), losses(whole))
        self.assertEqual(len(losses(out)), SAVING["max_steps"])
        (kept,) = re.findall(r"fold 0 continues after step (\d+)", again.stderr)
        print("%s: the job ended after %.1f s at step %d and went on from step %s" % (cause, seconds, reached, kept))

    def test_full_while_training(self):
        place = self.disk("64m")
        filler = os.path.join(place, "filler")

        def fill():
            with open(filler, "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"\0" * 65536)
                except OSError:
                    pass

        self.assertFailsAndContinues(os.path.join(place, "run"), "No space left on device", fill, lambda: os.remove(filler))

    def test_quota_while_training(self):
        """A quota of btrfs, because it binds root, too, and needs no more of the kernel than the file system itself."""
        place, image = self.path("disk"), self.path("image")
        home = os.path.join(place, "home")

        def btrfs(*words):
            return subprocess.run(["btrfs", *words], check=True, capture_output=True, text=True).stdout

        def limit(size):
            # by number and from outside: a change that goes by the path of a full one would itself be over the quota
            (number,) = re.findall(r"ID (\d+) .* path home", btrfs("subvolume", "list", place))
            btrfs("qgroup", "limit", size, "0/" + number, place)

        if not shutil.which("mkfs.btrfs"):
            self.skipTest("no quota: mkfs.btrfs is not installed")
        os.makedirs(place)
        with open(image, "wb") as f:
            f.truncate(256 << 20)
        subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
        if not mount("-o", "loop", image, place):
            self.skipTest("no quota: btrfs cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", place])
        btrfs("quota", "enable", place)
        btrfs("subvolume", "create", home)
        self.assertFailsAndContinues(os.path.join(home, "run"), "Disk quota exceeded", lambda: limit("1M"),
                                     lambda: limit("none"))
        limit("1M")
        refused = run("train", code=1, **dict(SAVING, output_dir=os.path.join(home, "another")))
        self.assertRegex(self.assertOneLine(refused), "Disk quota exceeded; check the file system and its space")

    def test_read_only(self):
        place = self.disk("64m")
        self.assertTrue(mount("-o", "remount,ro", place))
        began = time.time()
        done = run("train", ranks=2, code=None, **dict(SAVING, output_dir=os.path.join(place, "run")))
        self.assertIn(done.returncode, (1, 2))
        self.assertIn("Read-only file system", done.stderr)
        print("Read-only file system: the job ended after %.1f s, before its first step" % (time.time() - began))


if __name__ == "__main__":
    unittest.main(verbosity=2)
