"""Nothing hangs: what does not answer ends the job within ddp_timeout, with a line that says where."""

import os
import re
import signal
import time
import unittest

from program import *

TIMEOUT = 5
LONG = dict(TINY, max_steps=2000, eval_strategy="no", save_strategy="steps", save_steps=5, ddp_timeout=TIMEOUT)


@unittest.skipIf(SANITIZED, "too slow with sanitizers")
class Hang(ProgramTest):
    def wait_for_step(self, process, out, step):
        while process.poll() is None:
            if steps_done(out) >= step:
                return
            time.sleep(0.02)
        self.fail(process.communicate()[1])

    def assertEndsInTime(self, process, began, out, *words):
        _, said = process.communicate(timeout=60)
        seconds = time.time() - began
        self.assertNotIn(process.returncode, (0, 75), said)
        self.assertLess(seconds, TIMEOUT + 15)
        self.assertEqual(pids_of(out), [])
        lines = [l for l in said.split("\n") if "fb3-dist: [rank" in l]
        self.assertTrue(lines, said)
        for word in words:
            self.assertRegex(lines[0], word)
        print("ended %.1f s after it stood still, with ddp_timeout %d s" % (seconds, TIMEOUT))

    def test_a_rank_that_stands_still(self):
        """Rank 1 is stopped; rank 0 names what it waits for, in which step, for how long. The job goes on afterwards."""
        out = self.path("run")
        process = start("train", ranks=2, **dict(LONG, output_dir=out))
        self.wait_for_step(process, out, 7)
        os.kill(pid_of_rank(out, 1), signal.SIGSTOP)
        self.assertEndsInTime(process, time.time(), out, r"\[rank 0 ", "another rank", r"\d+ s")
        steps = len(events(out, 0, "step"))
        again = dict(LONG, output_dir=out)
        process = start("train", ranks=2, **again)
        self.wait_for_step(process, out, steps + 2)
        self.assertGreaterEqual(max(e["step"] for e in events(out, 0, "checkpoint")), 5)
        kill_all(process, out)

    def test_the_other_group_stands_still(self):
        """Groups do not wait for each other while they train, but a rank that stands still ends its own group."""
        out = self.path("run")
        process = start("train", ranks=4, **dict(LONG, fold_groups=2, train_folds="all", output_dir=out))
        self.wait_for_step(process, out, 3)
        os.kill(pid_of_rank(out, 3), signal.SIGSTOP)
        self.assertEndsInTime(process, time.time(), out, r"\[rank 2 ")

    def test_a_file_that_does_not_answer(self):
        """A named pipe that nobody writes to stands for a file system that hangs."""
        pipe, out = self.path("train.csv"), self.path("run")
        os.mkfifo(pipe)
        began = time.time()
        process = start("train", ranks=2, **dict(LONG, train_file=pipe, output_dir=out))
        self.assertEndsInTime(process, began, out, "preparing the data set")


if __name__ == "__main__":
    unittest.main(verbosity=2)
