#!/usr/bin/env python3
"""A small model trained from random weights on essays; every fifth essay is held out and scored after each epoch.

    scratch.py --csv train.csv --tokenizer DIR [--hidden 128 --layers 2 --heads 2 --epochs 6 --batch 16 --lr 1e-3]
               [--loss rmse|mse|...] [--max_length 512] [--seed 0]
"""

import argparse
import json
import math
import os
import random
import time

import torch
from transformers import get_scheduler

from bench import batches_of
from peer import Regressor, Tokenizer, groups, loss_of, mcrmse, pad, read_csv, v3_config


def predict(model, rows, batch):
    model.eval()
    with torch.no_grad():
        parts = [model(*pad([t for t, _ in rows[i : i + batch]])) for i in range(0, len(rows), batch)]
    model.train()
    return torch.cat(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True)
    parser.add_argument("--tokenizer", required=True)
    for key, value in dict(hidden=128, layers=2, heads=2, epochs=6, batch=16, max_length=512, seed=0).items():
        parser.add_argument("--" + key, type=int, default=value)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--loss", default="rmse")
    a = parser.parse_args()

    torch.manual_seed(a.seed)
    rng = random.Random(a.seed)
    tokenizer = Tokenizer(os.path.join(a.tokenizer, "spm.model"))
    rows = [(tokenizer(essay, a.max_length), scores) for essay, scores in read_csv(a.csv).values()]
    held_out, rows = rows[::5], [r for i, r in enumerate(rows) if i % 5]
    truth = torch.tensor([scores for _, scores in held_out])
    mean = torch.tensor([scores for _, scores in rows]).mean(0)
    print(json.dumps(dict(mean_predictor=round(mcrmse(mean.expand_as(truth), truth), 4))))

    model = Regressor(v3_config(a.hidden, a.layers, a.heads, 4 * a.hidden), head_dropout=0.2).train()
    optimizer = torch.optim.AdamW(groups(model, 1e-2), lr=a.lr)
    total = a.epochs * math.ceil(len(rows) / a.batch)
    scheduler = get_scheduler("linear", optimizer, math.ceil(0.1 * total), total)
    for epoch in range(a.epochs):
        rng.shuffle(rows)
        started, losses = time.time(), []
        for batch in batches_of(rows, a.batch, dynamic=True):
            target = torch.tensor([scores for _, scores in batch])
            loss = loss_of(a.loss, model(*pad([t for t, _ in batch])), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        seconds = time.time() - started
        score = mcrmse(predict(model, held_out, a.batch), truth)
        print(json.dumps(dict(epoch=epoch, loss=round(sum(losses) / len(losses), 4), held_out=round(score, 4),
                              seconds=round(seconds, 1))), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
