"""Writes golden/folds.txt: what the PyPI package iterative-stratification (0.1.9, numpy 2.4.6) makes of label matrices
that test_folds.c can make again.

Labels: label (i, j) is 1 when splitmix64(label_seed * 2^40 + i * 2^8 + j) mod 1000 is below density[j]; rows whose number
is divisible by zero_step (when that is not 0) have no label. Binned cases hold scores: 1 + 0.5 * (that hash mod levels[j]),
one label per (target, level that occurs), levels ascending, target by target.

A line: kind n k seed label_seed zero_step numbers(comma separated) crc32-of-one-byte-a-fold first-folds
Run: python make_folds_golden.py (needs numpy, scikit-learn, iterative-stratification)
"""

import pathlib
import random
import zlib

import numpy as np
from iterstrat.ml_stratifiers import IterativeStratification, MultilabelStratifiedKFold

SHOWN = 12


def splitmix64(x):
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashes(n, columns, label_seed):
    i = np.arange(n, dtype=np.uint64)[:, None] << np.uint64(8)
    j = np.arange(columns, dtype=np.uint64)[None, :]
    return splitmix64(i + j + (np.uint64(label_seed) << np.uint64(40)))


def labels_of(n, density, label_seed, zero_step):
    y = (hashes(n, len(density), label_seed) % np.uint64(1000)) < np.array(density, dtype=np.uint64)
    if zero_step:
        y[np.arange(n) % zero_step == 0] = False
    return y


def binned_of(n, levels, label_seed):
    level = (hashes(n, len(levels), label_seed) % np.array(levels, dtype=np.uint64)).astype(int)
    columns = [level[:, j] == v for j in range(len(levels)) for v in np.unique(level[:, j])]
    return np.stack(columns, axis=1)


def folds_of(y, k, seed):
    if y.shape[1] == 1:
        # The package's class calls one column "binary" and refuses it; its algorithm does not care.
        rng = np.random.RandomState(seed)
        order = np.arange(len(y))
        rng.shuffle(order)
        folds = IterativeStratification(labels=y[order], r=np.asarray([1 / k] * k), random_state=rng)
        return folds[np.argsort(order)].astype(np.uint8)
    fold = np.zeros(len(y), dtype=np.uint8)
    split = MultilabelStratifiedKFold(n_splits=k, shuffle=True, random_state=seed).split(np.zeros(len(y)), y)
    for f, (_, test) in enumerate(split):
        fold[test] = f
    return fold


def line(kind, n, k, seed, label_seed, zero_step, numbers):
    y = binned_of(n, numbers, label_seed) if kind == "binned" else labels_of(n, numbers, label_seed, zero_step)
    fold = folds_of(y, k, seed)
    first = " ".join(str(f) for f in fold[:SHOWN])
    return f"{kind} {n} {k} {seed} {label_seed} {zero_step} {','.join(map(str, numbers))} {zlib.crc32(fold):08x} {first}"


def cases():
    for k in (3, 4, 5, 10):
        yield "labels", 3911, k, 42, 0, 0, [1000] * 6
    yield "labels", 200000, 5, 7, 0, 0, [1000] * 6
    yield "labels", 2, 2, 0, 0, 0, [1000] * 6
    yield "labels", 100, 100, 1, 0, 0, [1000] * 2
    yield "labels", 50, 3, 4294967295, 1, 0, [0] * 4  # no label at all
    yield "labels", 97, 4, 5, 2, 1, [500] * 3  # the same by rows
    yield "labels", 1000, 5, 11, 3, 0, [500]
    yield "labels", 1000, 7, 12, 4, 3, [300]
    yield "labels", 501, 3, 13, 5, 0, [1000, 0, 500, 0, 10]  # columns of zeros
    yield "labels", 640, 8, 14, 6, 2, [2] * 70  # more than 64 labels, rare
    yield "labels", 640, 8, 15, 7, 0, [900] * 70
    yield "labels", 65536, 2, 16, 8, 0, [500, 500]
    yield "labels", 65537, 2, 17, 9, 5, [100, 900, 1]
    rng = random.Random(20221129)
    for number in range(40):
        n = rng.choice([5, 10, 33, 64, 100, 257, 999, 1500, 3911])
        k = rng.randint(2, min(n, rng.choice([3, 5, 10, 50, 100])))
        columns = rng.choice([2, 3, 6, 6, 9, 20, 54, 64, 65])
        spread = rng.choice([[0, 1000], [0, 30], [900, 1000], [0, 5, 500]])
        density = [rng.choice(spread) if len(spread) == 3 else rng.randint(*spread) for _ in range(columns)]
        yield "labels", n, k, rng.randint(0, 2**32 - 1), 100 + number, rng.choice([0, 0, 2, 3, 7]), density
    yield "binned", 3911, 3, 42, 200, 0, [9] * 6
    yield "binned", 3911, 10, 1, 201, 0, [9, 5, 3, 2, 1, 9]
    yield "binned", 100, 4, 2, 202, 0, [9] * 6
    yield "binned", 2057, 5, 3, 203, 0, [9, 100]


out = pathlib.Path(__file__).parent / "golden" / "folds.txt"
out.write_text("\n".join(line(*case) for case in cases()) + "\n")
