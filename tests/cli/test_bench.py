"""bench and --profile: what they say adds up; and a guard against a step that became slow or works more than it must."""

import json
import os
import unittest

from program import *

# Calls of a training step of a model with 2 layers, per operation: what the model is made of, no more.
CALLS = {
    "embedding_fwd": 1, "embedding_bwd": 1, "layernorm_fwd": 1, "layernorm_bwd": 1,
    "linear_bwd_input_float": 2, "linear_fwd": 8, "linear_gelu_fwd": 2, "linear_bwd_input": 6, "linear_gelu_bwd_input": 2,
    "linear_bwd_weight": 10, "attention_fwd": 2, "attention_bwd": 2, "add_layernorm_fwd": 4, "add_layernorm_bwd": 4,
    "mean_pool_fwd": 1, "mean_pool_bwd": 1, "head_fwd": 1, "head_bwd": 1, "loss_fwd": 1, "loss_bwd": 1,
    "sum_squares": 1, "adamw": 1,
}


def bench(**options):
    return json.loads(run("bench", json=True, **options).stdout)


class Bench(ProgramTest):
    def test_counts_of_a_step(self):
        r = bench(model_preset="tiny", per_device_train_batch_size=4, max_steps=1)
        calls = {o["operation"]: o["calls"] for o in r["operations"]}
        for op, count in CALLS.items():
            self.assertEqual(calls.get(op, 0), count, op)
        self.assertEqual(r["samples"], 4)

    def test_arithmetic_of_a_step(self):
        """Executed flops: exactly the products that the layers are made of, from shapes alone."""
        r = bench(model_preset="tiny", per_device_train_batch_size=4, max_steps=1)
        flops = {o["operation"]: o["flops"] for o in r["operations"]}
        T, C, F, L = r["tokens"], 64, 128, 2
        self.assertEqual(flops["linear_gelu_fwd"], 2 * T * C * F * L)
        self.assertEqual(flops["linear_gelu_bwd_input"], 2 * T * C * F * L)
        position = flops["linear_bwd_weight"] - 2 * T * L * (4 * C * C + 2 * C * F)
        self.assertEqual(position % (2 * C * 2 * C * L), 0)  # rows of the table, through query and key
        self.assertLessEqual(position / (2 * C * 2 * C * L), 512)
        self.assertGreater(r["executed_flops_per_rank"], 0.5 * r["step_flops_per_rank"])

    def test_checkpointing_computes_layers_again(self):
        r = bench(model_preset="tiny", per_device_train_batch_size=4, max_steps=1, gradient_checkpointing=True)
        calls = {o["operation"]: o["calls"] for o in r["operations"]}
        self.assertEqual(calls["attention_fwd"], 3)  # the last layer's share is still there
        self.assertEqual(calls["linear_bwd_weight"], CALLS["linear_bwd_weight"])

    def test_ranks(self):
        r = json.loads(run("bench", json=True, ranks=2, model_preset="tiny", per_device_train_batch_size=2,
                           max_steps=2).stdout)
        self.assertEqual((r["ranks"], r["samples"]), (2, 4))
        self.assertGreater(r["all_reduce_seconds"], 0)

    def test_table(self):
        text = run("bench", model_preset="tiny", max_steps=1).stdout
        for word in ["limits of a rank", "utilisation", "attention_bwd", "outside operations", "peak memory"]:
            self.assertIn(word, text)

    def test_leaves_no_file(self):
        run("bench", cwd=self.folder, model_preset="tiny", max_steps=1)
        self.assertEqual(os.listdir(self.folder), [])


# Utilisation of a float step of xsmall (batch 4) where it was measured, by vendor, family and model of the processor. A
# step is held to 92 % of it; elsewhere to what every processor reached that was tried.
MEASURED = {"AuthenticAMD 26 2": 0.77}
ELSEWHERE = 0.5


def processor():
    with open("/proc/cpuinfo") as f:
        lines = dict(l.split(":", 1) for l in f.read().split("\n\n")[0].splitlines() if ":" in l)
    found = {k.strip(): v.strip() for k, v in lines.items()}
    return " ".join(found.get(k, "?") for k in ("vendor_id", "cpu family", "model"))


class Guard(ProgramTest):
    """A step beside the matrix products that limit it, in turns in one process, so that a noisy clock meets both."""

    def test_xsmall_step(self):
        if SANITIZED:
            self.skipTest("a sanitized build is not fast")
        least = 0.92 * MEASURED[processor()] if processor() in MEASURED else ELSEWHERE
        best = 0
        for _ in range(4):  # a busy machine may spoil some
            best = max(best, bench(model_preset="deberta-v3-xsmall", per_device_train_batch_size=4, max_steps=5,
                                   bf16=False)["utilisation"])
            if best > least:
                return
        self.fail("the step reaches %.1f %% of the library's product rate; it used to reach %.1f %%" % (100 * best,
                                                                                                   100 * least))


class Profile(ProgramTest):
    def test_trace(self):
        trace = self.path("trace.json")
        run("train", ranks=2, **dict(TINY, output_dir=self.path("run"), profile=trace, max_steps=3))
        with open(trace) as f:
            events = [e for e in json.load(f)["traceEvents"] if e["ph"] == "X"]
        steps = [e for e in events if e["name"] == "step"]
        self.assertEqual([e["args"]["step"] for e in steps], [1, 2, 3])
        names = {e["name"] for e in events}
        for name in ["attention_fwd", "adamw", "read a batch", "write a checkpoint", "evaluate",
                     "wait for the gradient all-reduce"]:
            self.assertIn(name, names)
        for step in steps:
            inside = [e for e in events if e["tid"] == step["tid"] and e["cat"] != "train"
                      and step["ts"] <= e["ts"] and e["ts"] + e["dur"] <= step["ts"] + step["dur"] + 1]
            self.assertLessEqual(sum(e["dur"] for e in inside if e["cat"] == "operation"), step["dur"])
            self.assertEqual(len([e for e in inside if e["name"] == "adamw"]), 1)

    def test_the_host_waits_once_in_a_step(self):
        for loss in ["rmse", "mcrmse"]:  # the gradient of mcrmse needs sums of all ranks, on the device
            trace = self.path(loss + ".json")
            run("train", ranks=2, **dict(TINY, output_dir=self.path(loss), profile=trace, max_steps=3, loss_type=loss))
            with open(trace) as f:
                waits = [e for e in json.load(f)["traceEvents"] if e["name"] == "wait for the device"]
            self.assertEqual(len(waits), 3, loss)

    def test_off_by_default_and_the_same_bits(self):
        for profile in (None, self.path("t.json")):
            run("train", **dict(TINY, output_dir=self.path("p%s" % bool(profile)), **({"profile": profile} if profile else {})))
        a, b = ([e["loss"] for e in events(self.path(d), 0, "step")] for d in ("pFalse", "pTrue"))
        self.assertEqual(a, b)

    def test_a_place_that_cannot_be_written(self):
        done = run("train", code=None, **dict(TINY, output_dir=self.path("run"), profile=self.path("no", "t.json")))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("t.json", done.stderr)


if __name__ == "__main__":
    unittest.main()
