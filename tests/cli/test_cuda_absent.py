"""A build with CUDA on a machine without a device: the real libraries load, say why not, and the processor is used."""

import sys
import unittest

from program import *


def doctor():
    return run("doctor", env=environment(FB3_DEVICE="auto"), code=None).stdout


class Absent(ProgramTest):
    def test_doctor(self):
        self.assertRegex(doctor(), r"ok +cuda +.*runtime 1[23]\.[0-9]+, cuBLAS [0-9.]+, cuDNN [0-9.]+, NCCL [0-9.]+")
        self.assertRegex(doctor(), r"ok +cuda devices +not used: .+")

    def test_explicit_is_an_error(self):
        done = run("train", code=2, device="cuda", **dict(TINY, output_dir=self.path("run")))
        self.assertRegex(self.assertOneLine(done), "NVIDIA driver|CUDA")

    def test_auto_uses_the_processor_and_says_why(self):
        done = run("train", env=environment(FB3_DEVICE="auto"), **dict(TINY, max_steps=1, output_dir=self.path("run")))
        self.assertRegex(done.stdout, "cuda is not used: .*(NVIDIA|CUDA)")
        self.assertRegex(done.stdout, r"(?m)^ +0 .* cpu [a-z0-9]+")

    def test_versions(self):
        self.assertRegex(run("--version").stdout, r"CUDA: .*NCCL [0-9.]+")


if __name__ == "__main__":
    if "NCCL" not in doctor():
        print("skipped: this build has no libfb3_cuda.so")
        sys.exit(77)
    if cuda_devices():
        print("skipped: this machine has a CUDA device")
        sys.exit(77)
    unittest.main(verbosity=2)
