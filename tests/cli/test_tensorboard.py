"""report_to: tensorboard. What TensorBoard reads from it: test_tensorboard_readers.py."""

import os
import unittest

from program import *


def event_files(folder, fold=0):
    names = os.listdir(os.path.join(folder, "fold-%d" % fold))
    return sorted(n for n in names if n.startswith("events.out.tfevents."))


class TensorBoard(ProgramTest):
    def test_only_when_asked_for(self):
        run("train", **dict(TINY, output_dir=self.path("run")))
        self.assertEqual(event_files(self.path("run")), [])
        run("train", **dict(TINY, output_dir=self.path("other"), report_to="tensorboard"))
        self.assertEqual(len(event_files(self.path("other"))), 1)

    def test_it_never_changes_what_is_learned(self):
        for name, options in [("a", {}), ("b", {"report_to": "tensorboard"})]:
            run("train", **dict(TINY, output_dir=self.path(name), **options))
        self.assertEqual(losses(self.path("a")), losses(self.path("b")))
        self.assertEqual(weights_digest(self.path("a", "fold-0", "best.h5")), weights_digest(self.path("b", "fold-0", "best.h5")))


if __name__ == "__main__":
    unittest.main()
