#!/usr/bin/env python3
"""Compares this program's ids, and its tokenizer.json, with the installed transformers, string by string.

    compare_tokenizer.py build/tests/tokenize_lines TOKENIZER_DIRECTORY [--essays ESSAYS.csv] [--strings N] [--seed S]

transformers 4.57 is the reference: the fast tokenizer of the directory must give the same ids, and so must the
tokenizer.json. Other versions are asked for the tokenizer.json alone, read as a file and by AutoTokenizer."""
import argparse
import csv
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nasty_strings import nasty_strings, random_strings

LENGTHS = (None, 512, 16)
NO_LIMIT = 2**31 - 1


def ours(program, directory, texts, length):
    lines = "".join(text.encode("utf-8").hex() + "\n" for text in texts)
    done = subprocess.run([program, directory, str(length or NO_LIMIT)], input=lines, capture_output=True, text=True,
                          check=True)
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def exported(program, directory, folder):
    """A folder as `export --format hf` writes it, as far as the tokenizer goes."""
    done = subprocess.run([program, directory, "json"], capture_output=True, check=True)
    (folder / "tokenizer.json").write_bytes(done.stdout)
    shutil.copy(pathlib.Path(directory) / "spm.model", folder)
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
             "mask_token": "[MASK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **names}))
    (folder / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    return {"tokenizer.json": PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
            "AutoTokenizer of the export": AutoTokenizer.from_pretrained(folder)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("directory")
    parser.add_argument("--essays")
    parser.add_argument("--strings", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    texts = nasty_strings() + random_strings(args.strings, args.seed)
    if args.essays:
        with open(args.essays, newline="", encoding="utf-8") as file:
            texts += [row["full_text"] for row in csv.DictReader(file)]

    different = 0
    with tempfile.TemporaryDirectory() as folder:
        references = exported(args.program, args.directory, pathlib.Path(folder))
        if transformers.__version__.startswith("4.57."):
            references["the fast tokenizer"] = AutoTokenizer.from_pretrained(args.directory)
        for length in LENGTHS:
            mine = ours(args.program, args.directory, texts, length)
            for name, tokenizer in references.items():
                limit = {"truncation": True, "max_length": length} if length else {}
                theirs = tokenizer(texts, **limit)["input_ids"]
                wrong = [text for text, a, b in zip(texts, mine, theirs, strict=True) if a != b]
                print(f"transformers {transformers.__version__}, {name}, max_length {length}: {len(texts)} texts, "
                      f"{len(wrong)} differ {[ascii(text)[:100] for text in wrong[:3]]}", flush=True)
                different += len(wrong)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
