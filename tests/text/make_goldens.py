#!/usr/bin/env python3
"""Writes golden_strings.json and golden_essays.json: what the Hugging Face fast tokenizer makes of texts.

    pip install transformers==4.57.1 sentencepiece protobuf
    make_goldens.py DEBERTA_V3_TOKENIZER_DIRECTORY ESSAYS.csv

golden_strings.json holds texts with their ids by both tokenizers, DeBERTa-v3's and the sample's. golden_essays.json holds
no text: for every essay the CRC-32 of its ids as little-endian 32-bit numbers, whole and truncated to 512."""
import csv
import json
import pathlib
import struct
import sys
import zlib

import transformers
from transformers import AutoTokenizer

from nasty_strings import nasty_strings, random_strings

HERE = pathlib.Path(__file__).parent
SAMPLE = HERE.parent / "sample"
LENGTH = 512
RANDOM_STRINGS, SEED = 280, 7


def essays(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [row["full_text"] for row in csv.DictReader(file)]


def crc(ids):
    return f"{zlib.crc32(struct.pack(f'<{len(ids)}I', *ids)):08x}"


def crcs(tokenizer, texts):
    return {"whole": "".join(crc(tokenizer(text)["input_ids"]) for text in texts),
            "truncated": "".join(crc(tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"])
                                 for text in texts)}


def write(name, value, lines):
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    if lines:
        text = text.replace('},{"text"', '},\n{"text"')
    (HERE / name).write_text(text + "\n")


def main():
    assert transformers.__version__ == "4.57.1"
    deberta, sample = (AutoTokenizer.from_pretrained(folder) for folder in (sys.argv[1], SAMPLE))
    texts = nasty_strings() + random_strings(RANDOM_STRINGS, SEED)
    write("golden_strings.json", {"strings": [{"text": text, "deberta": deberta(text)["input_ids"],
                                               "sample": sample(text)["input_ids"]} for text in texts]}, True)
    write("golden_essays.json", {"deberta": crcs(deberta, essays(sys.argv[2])),
                                 "sample": crcs(sample, essays(SAMPLE / "train.csv"))}, False)
    print(f"{len(texts)} strings")


if __name__ == "__main__":
    main()
