#!/usr/bin/env python3
"""Seconds and memory of the recipe's training steps in PyTorch on the CPU, on real essays.

    bench.py --csv train.csv --tokenizer DIR [--size xsmall|small|base|large] [--batch 8] [--steps 3] [--warmup 1]
             [--dtype fp32|bf16] [--dynamic] [--max_length 512] [--threads 2] [--ddp] [--predict]

Random weights at the published shapes. Batches are padded to --max_length, or with --dynamic to their longest essay, in
groups of similar length. --ddp averages gradients over the processes of torchrun (gloo). Prints one JSON object: samples
and real tokens per second, peak resident memory. --predict times evaluation instead of training.
"""

import argparse
import json
import os
import random
import resource
import sys
import time

import torch

from peer import SIZES, Regressor, Tokenizer, groups, loss_of, pad, read_csv, v3_config

MEGA_BATCHES = 50  # transformers' group_by_length sorts so many batches at a time


def batches_of(rows, batch, dynamic):
    rows = list(rows)
    if dynamic:
        mega = [rows[i : i + batch * MEGA_BATCHES] for i in range(0, len(rows), batch * MEGA_BATCHES)]
        rows = [r for group in mega for r in sorted(group, key=lambda r: -len(r[0]))]
    batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    if dynamic:
        random.Random(2).shuffle(batches)
    return batches


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--size", default="base", choices=SIZES)
    for key, value in dict(batch=8, steps=3, warmup=1, max_length=512, threads=2).items():
        parser.add_argument("--" + key, type=int, default=value)
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--ddp", action="store_true")
    parser.add_argument("--predict", action="store_true")
    a = parser.parse_args()

    torch.set_num_threads(a.threads)
    rank, world = 0, 1
    if a.ddp:
        torch.distributed.init_process_group("gloo")
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(0)
    model = Regressor(v3_config(*SIZES[a.size]), head_dropout=0.2).train()
    if a.ddp:
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(groups(model, 1e-6), lr=1e-5, eps=1e-6)

    tokenizer = Tokenizer(os.path.join(a.tokenizer, "spm.model"))
    rows = [(tokenizer(essay, a.max_length), scores) for essay, scores in read_csv(a.csv).values()]
    random.Random(1).shuffle(rows)
    needed = (a.steps + a.warmup) * a.batch * world
    mine = batches_of(rows[:needed], a.batch, a.dynamic)[rank::world]

    start, tokens, samples = time.time(), 0, 0
    for step, batch in enumerate(mine):
        if step == a.warmup:
            start, tokens, samples = time.time(), 0, 0
        ids, mask = pad([t for t, _ in batch], None if a.dynamic else a.max_length)
        tokens += sum(len(t) for t, _ in batch)
        samples += len(batch)
        if a.predict:
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
                model.eval()(ids, mask)
            continue
        target = torch.tensor([scores for _, scores in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            pred = model(ids, mask)
        loss = loss_of("rmse", pred.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {loss.item():.4f} {ids.shape[1]} tokens wide", file=sys.stderr)
    seconds = time.time() - start
    print(
        json.dumps(
            dict(
                vars(a),
                world=world,
                rank=rank,
                samples_per_second=round(samples * world / seconds, 4),
                tokens_per_second=round(tokens * world / seconds, 1),
                peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            )
        )
    )


if __name__ == "__main__":
    main()
