#!/usr/bin/env python3
"""Loads what `fb3-dist export` wrote, as its users do, and compares predictions.

    check_export.py HF_DIR TORCH_DIR SUBMISSION.csv TEST.csv --ids FILE [--tokens-only --slow TOKENIZER_DIR]

HF_DIR must load in AutoTokenizer and AutoModel, TORCH_DIR/pytorch_model.bin by torch.load(weights_only=True) into the
notebook's module (model.*, fc.*). Their predictions for the essays that SUBMISSION.csv names must be its own to 1e-4.
The token ids are written to, or compared with, FILE, so that two versions of transformers can be held against each
other; --slow also compares them with the fast tokenizer of the original directory.
"""

import argparse
import csv
import json
import os
import sys

LIMIT = 1e-4
MAX_LENGTH = 512


def read(path):
    with open(path, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def tokenize(directory, texts):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [tokenizer(text, truncation=True, max_length=MAX_LENGTH)["input_ids"] for text in texts]


def compare_ids(args, ids):
    if args.slow:
        import transformers

        original = transformers.DebertaV2TokenizerFast.from_pretrained(args.slow)
        texts = [row["full_text"] for row in args.rows]
        expected = [original(t, truncation=True, max_length=MAX_LENGTH)["input_ids"] for t in texts]
        assert ids == expected, "the exported tokenizer gives other ids than the original one"
    if os.path.exists(args.ids):
        with open(args.ids) as f:
            assert json.load(f) == ids, "two versions of transformers give different ids"
    with open(args.ids, "w") as f:
        json.dump(ids, f)


def predictions(model, head, ids):
    import torch

    out = []
    with torch.no_grad():
        for row in ids:
            hidden = model(torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long))
            out.append((hidden.last_hidden_state.mean(1) @ head[0].T + head[1])[0].tolist())
    return out


def worst(a, b):
    return max(abs(x - y) for r, s in zip(a, b) for x, y in zip(r, s))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hf", "torch", "submission", "test"):
        parser.add_argument(name)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--tokens-only", action="store_true")
    parser.add_argument("--slow")
    args = parser.parse_args()

    submission = read(args.submission)
    text = {row["text_id"]: row for row in read(args.test)}
    args.rows = [text[row["text_id"]] for row in submission]
    ids = tokenize(args.hf, [row["full_text"] for row in args.rows])
    compare_ids(args, ids)
    if args.tokens_only:
        print("ids of %d essays agree" % len(ids))
        return

    import torch
    import transformers
    from safetensors.torch import load_file

    targets = [c for c in submission[0] if c != "text_id"]
    ours = [[float(row[t]) for t in targets] for row in submission]

    model = transformers.AutoModel.from_pretrained(args.hf, dtype=torch.float32).eval()
    tensors = load_file(os.path.join(args.hf, "model.safetensors"))
    a = worst(predictions(model, (tensors["fc.weight"], tensors["fc.bias"]), ids), ours)

    class FeedBackModel(torch.nn.Module):  # the notebook's names
        def __init__(self):
            super().__init__()
            config = transformers.AutoConfig.from_pretrained(args.torch)
            self.model = transformers.AutoModel.from_config(config)
            self.fc = torch.nn.Linear(config.hidden_size, len(targets))

    notebook = FeedBackModel()
    state = torch.load(os.path.join(args.torch, "pytorch_model.bin"), weights_only=True)
    notebook.load_state_dict(state, strict=True)
    notebook.eval()
    b = worst(predictions(notebook.model, (notebook.fc.weight, notebook.fc.bias), ids), ours)
    print("transformers %s: AutoModel differs by %.2g, the notebook's module by %.2g" % (transformers.__version__, a, b))
    sys.exit(0 if max(a, b) < LIMIT else 1)


if __name__ == "__main__":
    main()
