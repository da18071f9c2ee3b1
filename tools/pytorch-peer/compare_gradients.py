#!/usr/bin/env python3
"""Random small models: fb3-dist's predictions and gradients, every element, against float64 PyTorch.

    compare_gradients.py --dump build/tests/model_dump [--cases 20] [--seed 1] [--backend cpu]

One line a case; exit status 1 if any is above the limits. The cases, the weights and the dropout masks are those of
tests/model/make_goldens.py, which is imported.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "model"))
import make_goldens as goldens  # noqa: E402

PREDICTION_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4
ZERO_BY_ALGEBRA, ZERO_LIMIT = 1e-12, 1e-6  # as in tests/model/test_model_parity.c
MAX_SEQUENCES = 16


def random_case(rng):
    head, heads = rng.choice([8, 16, 24, 32, 64]), rng.randint(1, 4)
    if head * heads % 16:
        heads *= 2
    lengths = [rng.choice([1, 2, 3, rng.randint(4, 64), rng.randint(65, 300)]) for _ in range(rng.randint(1, 8))]
    if rng.random() < 0.3:
        lengths[0] = rng.randint(301, 700)
    assert len(lengths) <= MAX_SEQUENCES
    case = goldens.shape(
        head * heads, rng.randint(1, 3), heads, 16 * rng.randint(1, 16), lengths,
        rng.choice(["rmse", "mse", "l1", "smooth_l1", "mcrmse"]), targets=rng.randint(1, 8),
    )  # fmt: skip
    case["key"] = [rng.getrandbits(32), rng.getrandbits(32)]
    case["step"] = rng.randint(0, 10**6)
    if case["loss"] == "smooth_l1":
        case["beta"] = rng.choice([0.1, 0.5, 1.0])
    if rng.random() < 0.5:
        case["dropout"] = [rng.choice([0.0, 0.1, 0.4]) for _ in range(3)]
    if rng.random() < 0.2:
        case["buckets"], case["max_relative"] = rng.choice([(32, 64), (64, 512), (256, 1024)])
    return case


def reference(case):
    """{name: float64 array}; "pred" and the gradients."""
    model = goldens.Regressor(case).train()
    lengths, ids, targets, samples = goldens.batch(case)
    if any(case["dropout"]):
        model.use_masks(case, lengths, samples)
    pred = model(lengths, ids)
    goldens.loss_of(case, pred, torch.from_numpy(targets)).backward()
    return {"pred": pred.detach().numpy()} | {n: p.grad.numpy() for n, p in model.parameters_by_name()}


def dumped(program, backend, case):
    with tempfile.TemporaryDirectory() as folder:
        case_file, out_file = os.path.join(folder, "case.json"), os.path.join(folder, "out")
        with open(case_file, "w", encoding="utf-8") as f:
            json.dump(case, f)
        run = subprocess.run([program, backend, case_file, out_file], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{program} failed on {case}\n{run.stdout}{run.stderr}")
        records = {}
        with open(out_file, "rb") as f:
            while line := f.readline():
                name, count = line.decode().split()
                records[name] = np.frombuffer(f.read(4 * int(count)), dtype=np.float32)
        return records


def compare(case, ours, theirs):
    """Worst relative difference of the predictions and of any gradient, and that gradient's name."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    largest = max(np.abs(g).max() for n, g in theirs.items() if n != "pred")
    worst, where, prediction = 0.0, "", 0.0
    for name, expected in theirs.items():
        difference = np.abs(ours[name].astype(np.float64) - expected.reshape(-1)).max()
        scale = np.abs(expected).max()
        if not np.isfinite(ours[name]).all():
            difference = np.inf
        if name == "pred":
            prediction = difference / scale
        elif scale < ZERO_BY_ALGEBRA * largest:
            assert difference < ZERO_LIMIT * largest, (name, difference, largest)
        elif difference / scale > worst:
            worst, where = difference / scale, name
    return prediction, worst, where


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    failed = 0
    for _ in range(args.cases):
        case = random_case(rng)
        prediction, gradient, where = compare(case, dumped(args.dump, args.backend, case), reference(case))
        bad = not (prediction < PREDICTION_LIMIT and gradient < GRADIENT_LIMIT)
        failed += bad
        summary = {k: case[k] for k in ("hidden", "heads", "layers", "intermediate", "lengths", "loss", "dropout")}
        print(json.dumps(dict(prediction=float(f"{prediction:.2g}"), gradient=float(f"{gradient:.2g}"), where=where,
                              bad=bad, **summary)), flush=True)  # fmt: skip
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
