"""The program on a CUDA device, emulated or real: the same steps as on the processor, the same bits again and after a
stop, and failures that end the job with the right line. What needs a second device or a fault on demand is for the
emulated build alone."""

import os
import signal
import subprocess
import sys
import time
import unittest

from program import *

DEVICES = cuda_devices()
EMULATED = any("emulated" in line for line in DEVICES)

# Dropout everywhere, two micro-batches a step.
CURVE = dict(TINY, per_device_train_batch_size=4, total_train_batch_size=16, max_steps=4, hidden_dropout_prob=0.1,
             attention_probs_dropout_prob=0.1, head_dropout=0.2)

FLOAT_BAND = 2e-6  # of loss and gradient norm, each step; the issue asks for 1e-4
BF16_BAND = 2e-4


def on_devices(count=2, **extra):
    """Environment for `count` devices."""
    return environment(CUDAEMU_DEVICES=str(count), **extra)


class Cuda(ProgramTest):
    def train(self, name, device="cuda", ranks=None, env=None, **options):
        out = self.path(name)
        run("train", ranks=ranks, env=env or on_devices(), device=device, **dict(CURVE, output_dir=out, **options))
        return out

    def assertSameCurve(self, a, b, band):
        a, b = events(a, 0, "step"), events(b, 0, "step")
        self.assertEqual(len(a), len(b))
        for x, y in zip(a, b):
            for key in ["loss", "grad_norm"]:
                self.assertLess(abs(x[key] - y[key]) / abs(y[key]), band, (key, x["step"], x[key], y[key]))

    def best(self, out):
        return weights_digest(os.path.join(out, "fold-0", "best.h5"))


class Parity(Cuda):
    def test_float(self):
        for loss in ["rmse", "mcrmse"]:
            cpu = self.train("cpu-" + loss, device="cpu", loss_type=loss)
            self.assertSameCurve(self.train("cuda-" + loss, loss_type=loss), cpu, FLOAT_BAND)

    def test_bf16(self):
        cpu = self.train("cpu", device="cpu")
        fused = self.train("fused", bf16=True)
        self.assertSameCurve(fused, cpu, 1e-3)  # against float: the rounding of bf16 itself
        self.assertSameCurve(self.train("reference", bf16=True, attention_impl="reference"), fused, BF16_BAND)

    def test_two_ranks(self):
        if len(DEVICES) < 2 and not EMULATED:
            self.skipTest("one device")
        for bf16, band in [(False, FLOAT_BAND), (True, BF16_BAND)]:
            name = "bf16" if bf16 else "float"
            loss = "rmse" if bf16 else "mcrmse"  # its sums go over the ranks before its gradient
            two = self.train("two-" + name, ranks=2, bf16=bf16, loss_type=loss)
            self.assertSameCurve(two, self.train("one-" + name, bf16=bf16, loss_type=loss), band)

    def test_reproducible_on_any_number_of_ranks(self):
        if len(DEVICES) < 3 and not EMULATED:
            self.skipTest("fewer than three devices")
        for bf16 in [False, True]:
            found = []
            for ranks in [1, 2, 3]:
                out = self.train("%s-%d" % (bf16, ranks), ranks=ranks, bf16=bf16, reproducible=True, env=on_devices(3))
                found.append((losses(out), self.best(out), rows(os.path.join(out, "fold-0", "oof.csv"))))
            self.assertEqual(found[1], found[0])
            self.assertEqual(found[2], found[0])

    @unittest.skipUnless(EMULATED, "needs devices of two kinds")
    def test_reproducible_on_one_kind_of_device(self):
        words = ["train"] + arguments(dict(CURVE, device="cuda", reproducible=True, output_dir=self.path("mixed")))
        words = [PROGRAM] + [str(w) for w in words]
        done = subprocess.run(["mpirun", "--oversubscribe", "-np", "1"] + words +
                              [":", "-np", "1", "env", "CUDAEMU_CAPABILITY=8.0"] + words,
                              env=on_devices(), capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("reproducible: kind of processor or device", done.stderr)

    def test_fold_groups(self):
        """Two groups of two devices: each has a communicator of its own."""
        if len(DEVICES) < 4 and not EMULATED:
            self.skipTest("fewer than four devices")
        options = dict(train_folds="all", max_steps=3)
        one, groups = self.train("one", **options), self.train("groups", ranks=4, fold_groups=2, env=on_devices(4), **options)
        for fold in range(2):
            a, b = losses(one, fold), losses(groups, fold)
            self.assertEqual(len(a), 3)
            for x, y in zip(a, b):
                self.assertLess(abs(x - y) / abs(y), FLOAT_BAND)

    def test_checkpointing_changes_no_bit(self):
        for bf16 in [False, True]:
            a = self.train("whole-%s" % bf16, bf16=bf16)
            b = self.train("again-%s" % bf16, bf16=bf16, gradient_checkpointing=True)
            self.assertEqual(losses(a), losses(b))
            self.assertEqual(self.best(a), self.best(b))

    def test_same_run_twice_same_bits(self):
        a, b = self.train("a", bf16=True), self.train("b", bf16=True, env=on_devices(CUDAEMU_SEED="7"))
        self.assertEqual(losses(a), losses(b))
        self.assertEqual(self.best(a), self.best(b))

    def test_predict_on_either_device(self):
        out, tables = self.train("run"), []
        for device in ["cpu", "cuda"]:
            table = self.path(device + ".csv")
            run("predict", out, device=device, test_file=TEST, output_file=table, max_predict_samples=20)
            tables.append(rows(table))
        for a, b in zip(*tables):
            for t in TARGETS:
                self.assertAlmostEqual(float(a[t]), float(b[t]), delta=1e-5)


class Resume(Cuda):
    LONG = dict(CURVE, max_steps=8, save_strategy="steps", save_steps=2, eval_strategy="no")

    def stop_after(self, out, step, device):
        process = start("train", env=on_devices(), device=device, **dict(self.LONG, output_dir=out))
        limit = time.time() + 90
        while process.poll() is None and time.time() < limit:
            try:
                if len(losses(out)) >= step:
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=90)
        self.assertEqual(process.returncode, 75, text)

    def test_stopped_and_continued(self):
        whole = self.train("whole", **self.LONG)
        out = self.path("stopped")
        self.stop_after(out, 3, "cuda")
        self.assertLess(len(losses(out)), 8)
        run("train", env=on_devices(), device="cuda", **dict(self.LONG, output_dir=out))
        self.assertEqual(losses(out), losses(whole))
        self.assertEqual(self.best(out), self.best(whole))

    def test_checkpoints_are_of_no_device(self):
        whole = self.train("whole", device="cpu", **self.LONG)
        for first, then in [("cuda", "cpu"), ("cpu", "cuda")]:
            out = self.path(first)
            self.stop_after(out, 3, first)
            run("train", env=on_devices(), device=then, **dict(self.LONG, output_dir=out))
            self.assertSameCurve(out, whole, 1e-4)


class Debug(Cuda):
    def test_every_operation_is_checked(self):
        for bf16 in [False, True]:
            out = self.path("debug-%s" % bf16)
            done = run("train", env=on_devices(1), device="cuda", debug=True, bf16=bf16, **dict(CURVE, output_dir=out))
            self.assertIn("checked", done.stdout)


@unittest.skipUnless(EMULATED, "faults on demand: the emulated build")
class Refused(Cuda):
    """What cannot work is refused at the start, with the numbers."""

    def refuse(self, text, code, ranks=None, device="cuda", env=None, **options):
        out = self.path("refused")
        done = run("train", code=code, ranks=ranks, device=device, env=env,
                   **dict(CURVE, output_dir=out, **options))
        self.assertRegex(done.stderr, text)
        return done

    def test_no_driver(self):
        env = environment(CUDAEMU_DRIVER="0", FB3_DEVICE="auto")
        self.refuse("no NVIDIA driver", 2, env=env)
        done = run("train", env=env, **dict(CURVE, max_steps=1, output_dir=self.path("auto")))
        self.assertIn("cuda is not used: no NVIDIA driver", done.stdout)

    def test_auto_takes_cuda(self):
        done = run("train", env=on_devices(1, FB3_DEVICE="auto"), **dict(CURVE, max_steps=1, output_dir=self.path("auto")))
        self.assertIn("cuda:0 emulated device", done.stdout)

    def test_old_driver(self):
        self.refuse("driver is for CUDA 11.8", 2, env=environment(CUDAEMU_DRIVER="11080"))

    def test_old_device(self):
        self.refuse("compute capability 7.5.*needs 8.0", 2, env=environment(CUDAEMU_CAPABILITY="7.5"))

    def test_more_ranks_than_devices(self):
        self.refuse("2 devices are visible to the 3 ranks", 2, ranks=3, env=on_devices(2))

    def test_two_ranks_on_one_device(self):
        self.refuse("ranks 0 and 1 of .* have the same device", 2, ranks=2, env=on_devices(1))

    def test_too_little_memory(self):
        done = self.refuse("need .* GiB of the device's memory, and .* are left", 1, env=on_devices(1, CUDAEMU_MEMORY=str(44 << 20)),
                           per_device_train_batch_size=16)
        self.assertRegex(done.stderr, "per_device_train_batch_size: [0-9]+ fits")

    def test_fused_attention_needs_bf16(self):
        self.refuse("fused works in bf16", 2, env=on_devices(1), attention_impl="fused")


@unittest.skipUnless(EMULATED, "faults on demand: the emulated build")
class Broken(Cuda):
    """A collective that fails or hangs ends every rank with a line that says which one, and where."""

    def broken(self, fault, text, **options):
        began = time.time()
        done = run("train", ranks=2, code=1, env=on_devices(2, CUDAEMU_NCCL_FAIL=fault), device="cuda",
                   **dict(CURVE, output_dir=self.path("broken"), **options))
        self.assertRegex(done.stderr, text)
        self.assertLess(time.time() - began, 60)

    def test_call_fails(self):
        self.broken("1:3:error", "gradient all-reduce of step 1, rank 1 of 2: NCCL: ")

    def test_error_from_the_network(self):
        self.broken("0:4:async", "gradient all-reduce of step [0-9]+, rank 0 of 2: NCCL: ")

    def test_peer_hangs(self):
        self.broken("1:5:hang", "gradient all-reduce of step [0-9]+.*nothing came for 5 s \\(ddp_timeout\\)", ddp_timeout=5)

    def test_connecting_fails(self):
        self.broken("1:1:init", "connecting the devices of 2 ranks, rank 1: NCCL: ")


if __name__ == "__main__":
    if not DEVICES:
        print("skipped: no CUDA device answers fb3-dist doctor")
        sys.exit(77)
    unittest.main(verbosity=2)
