#!/usr/bin/env python3
"""Writes a small Hugging Face DeBERTa-v2 directory with random weights.

    make_hf.py OUT [--tokenizer DIR] [--layers 2 --hidden 64 --heads 4 --intermediate 128 --vocab 128100]
               [--dtype float32|float16|bfloat16] [--bin] [--std 0.08] [--seed 0]

--tokenizer names a directory whose files are copied in. --bin writes pytorch_model.bin with the prefix `deberta.`, as the
hub has it, instead of model.safetensors. --not_shared makes a model that fb3-dist must refuse (share_att_key false).
"""

import argparse
import json
import os
import shutil

import torch
from transformers import DebertaV2Model

from peer import v3_config


def randomize(model, std):
    """Larger than transformers' initialisation, so that every part of the model matters to the output."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn_like(p)
            if "LayerNorm.weight" in name:
                p.copy_(1 + 0.1 * noise)
            else:
                p.copy_((0.05 if name.endswith("bias") else std) * noise)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    sizes = dict(layers=2, hidden=64, heads=4, intermediate=128, vocab=128100, buckets=256, seed=0)
    for key, value in sizes.items():
        parser.add_argument("--" + key, type=int, default=value)
    parser.add_argument("--tokenizer")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--std", type=float, default=0.08)
    parser.add_argument("--bin", action="store_true")
    parser.add_argument("--not_shared", action="store_true")
    a = parser.parse_args()

    torch.manual_seed(a.seed)
    config = v3_config(a.hidden, a.layers, a.heads, a.intermediate, a.vocab, a.buckets, dropout=0.1)
    config.share_att_key = not a.not_shared
    model = DebertaV2Model(config)
    randomize(model, a.std)
    model.to(getattr(torch, a.dtype))
    os.makedirs(a.out, exist_ok=True)
    if a.bin:
        config.save_pretrained(a.out)
        state = {"deberta." + name: tensor for name, tensor in model.state_dict().items()}
        torch.save(state, os.path.join(a.out, "pytorch_model.bin"))
    else:
        model.save_pretrained(a.out)
    for name in os.listdir(a.tokenizer) if a.tokenizer else ():
        shutil.copyfile(os.path.join(a.tokenizer, name), os.path.join(a.out, name))
    print(json.dumps(dict(out=a.out, parameters=sum(p.numel() for p in model.parameters()))))


if __name__ == "__main__":
    main()
