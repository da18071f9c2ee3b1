#!/usr/bin/env python3
"""Trains PyTorch on the very batches of a finished fb3-dist fold and compares.

    replay.py --fold RUN/fold-0 --csv train.csv [--dtype float64|float32] [--steps N]

The fold must have been trained with --save_initial and --log_samples, all three dropouts 0. Model, tokenizer and
configuration come from its initial.h5, the batches from its metrics.jsonl, the end weights from its last.h5 (compared
only when all steps are replayed). Prints one JSON object; exit status 1 if anything is above the limits.
"""

import argparse
import json
import math
import os
import sys

import h5py
import torch
import yaml
from transformers import DebertaV2Config, get_scheduler

from peer import Regressor, Tokenizer, groups, loss_of, pad, read_csv

LOSS_LIMIT, WEIGHT_LIMIT, NORM_LIMIT = 1e-4, 1e-3, 1e-3
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "head_dropout")


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def numbers(config):
    """YAML 1.1 reads 1e-05, which has no point, as text."""

    def number(value):
        try:
            return float(value)
        except (TypeError, ValueError):
            return value

    return {key: number(value) if isinstance(value, str) else value for key, value in config.items()}


def read_weights(path):
    """{name in Regressor: float32 tensor} of a checkpoint."""
    with h5py.File(path) as f:
        tensors = {name: torch.from_numpy(dataset[()]) for name, dataset in f["model"].items()}
    return {name if name.startswith("fc.") else "model." + name: t for name, t in tensors.items()}


def read_start(path):
    """Configuration, label columns, steps, model configuration, tokenizer of initial.h5."""
    with h5py.File(path) as f:
        train = f["train"].attrs
        config = numbers(yaml.safe_load(text(train["config"])))
        columns = json.loads(text(train["label_columns"]))
        model = DebertaV2Config(**json.loads(f["model_config"][()].tobytes()))
        tokenizer = Tokenizer(model_proto=f["tokenizer"][()].tobytes())
        return config, columns, int(train["total_steps"]), model, tokenizer


def read_steps(path):
    """The last record of each finished step, in order: a resumed run may have done a step twice."""
    steps = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            event = json.loads(line)
            if event.get("event") == "step":
                steps[event["step"]] = event
    return [steps[n] for n in sorted(steps)]


def warmup_steps(config, total):
    steps = config.get("warmup_steps") or 0
    if steps >= 1:
        return int(steps)
    return math.ceil(total * (steps if steps > 0 else config.get("warmup_ratio") or 0))


def scheduler_of(optimizer, config, total):
    kwargs = config.get("lr_scheduler_kwargs") or {}
    if isinstance(kwargs, str):
        kwargs = json.loads(kwargs)
    return get_scheduler(
        config["lr_scheduler_type"], optimizer, warmup_steps(config, total), total, scheduler_specific_kwargs=kwargs
    )


def relative(a, b):
    return abs(a - b) / abs(b)


def end_distances(model, start, end):
    """|difference of end weights| / |end - start| per tensor that moved."""
    ours, distance = model.state_dict(), {}
    for name, tensor in end.items():
        moved = (ours[name].double() - start[name].double()).norm().item()
        if moved > 0:
            distance[name] = (ours[name].double() - tensor.double()).norm().item() / moved
    return distance


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", required=True, help="the fold's directory")
    parser.add_argument("--csv", required=True, help="the CSV that the run was trained on")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    args = parser.parse_args()

    config, columns, total, model_config, tokenizer = read_start(os.path.join(args.fold, "initial.h5"))
    if any(config[key] for key in DROPOUTS):
        sys.exit("the run was trained with dropout: PyTorch cannot draw the same masks; set " + ", ".join(DROPOUTS))
    model_config.hidden_dropout_prob = model_config.attention_probs_dropout_prob = 0.0
    rows = read_csv(args.csv, config["id_column"], config["text_column"], columns)
    start = read_weights(os.path.join(args.fold, "initial.h5"))
    dtype = getattr(torch, args.dtype)
    model = Regressor(model_config, len(columns))
    model.load_state_dict(start)
    model.to(dtype).train()
    optimizer = torch.optim.AdamW(
        groups(model, config["weight_decay"]),
        lr=config["learning_rate"],
        betas=(config["adam_beta1"], config["adam_beta2"]),
        eps=config["adam_epsilon"],
    )
    scheduler = scheduler_of(optimizer, config, total)

    steps = read_steps(os.path.join(args.fold, "metrics.jsonl"))
    worst_loss = worst_norm = worst_rate = 0.0
    for record in steps[: args.steps]:
        samples = [rows[sample] for sample in record["samples"]]
        ids, mask = pad([tokenizer(essay, config["max_length"]) for essay, _ in samples])
        target = torch.tensor([scores for _, scores in samples], dtype=dtype)
        loss = loss_of(config["loss_type"], model(ids, mask), target, config.get("smooth_l1_beta", 1.0))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config["max_grad_norm"] or math.inf).item()
        worst_rate = max(worst_rate, abs(record["learning_rate"] - scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        worst_loss = max(worst_loss, relative(record["loss"], loss.item()))
        worst_norm = max(worst_norm, relative(record["grad_norm"], norm))

    done = len(steps[: args.steps])
    result = dict(steps=done, loss=worst_loss, grad_norm=worst_norm, learning_rate=worst_rate)
    bad = done == 0 or worst_loss > LOSS_LIMIT or worst_norm > NORM_LIMIT
    bad = bad or worst_rate > 1e-6 * config["learning_rate"]
    if done == len(steps):
        distance = end_distances(model, start, read_weights(os.path.join(args.fold, "last.h5")))
        worst = max(distance, key=distance.get)
        result |= dict(end_weights=distance[worst], where=worst, tensors=len(distance))
        bad = bad or distance[worst] > WEIGHT_LIMIT
    print(json.dumps(result | dict(bad=bad)))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
