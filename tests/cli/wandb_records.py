"""A reader of W&B's transaction logs for the tests that have no wandb package: the framing, and as much of the messages as
tests ask for."""

import glob
import json
import os
import struct
import zlib

BLOCK, HEADER = 32768, 7
KINDS = {2: "history", 3: "summary", 6: "files", 7: "stats", 8: "artifact", 12: "metric", 13: "output_raw", 17: "run",
         18: "exit", 20: "final", 21: "header", 23: "preempting"}


def frames(path):
    """The records' bytes; what is torn at the end is left out."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:HEADER] == b":W&B\xe1\xbe\0", data[:HEADER]
    at, record, found = HEADER, b"", []
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        crc, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + HEADER:at + HEADER + length]
        if len(piece) < length:
            break
        assert zlib.crc32(bytes([kind]) + piece) == crc
        record = piece if kind in (1, 2) else record + piece
        if kind in (1, 4):
            found.append(record)
        at += HEADER + length
    return found


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """[(number, int or bytes)]"""
    at, found = 0, []
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        found.append((tag >> 3, value))
    return found


def one(data, number, otherwise=None):
    return next((value for n, value in fields(data) if n == number), otherwise)


def items(data, number=1):
    """The items of a history, summary or configuration."""
    pairs = [dict(fields(value)) for n, value in fields(data) if n == number]
    return {pair[1].decode(): json.loads(pair[16]) for pair in pairs}


def records(path):
    """[(kind, bytes)]; every record is numbered and has exactly one kind."""
    found = []
    for i, frame in enumerate(frames(path)):
        parts = fields(frame)
        assert parts[0] == (1, i + 1), parts
        assert len(parts) == 2 and parts[1][0] in KINDS, parts
        found.append((KINDS[parts[1][0]], parts[1][1]))
    return found


def of_kind(path, kind):
    return [data for k, data in records(path) if k == kind]


def history(path):
    return [items(data) for data in of_kind(path, "history")]


def exit_code(path):
    """None where there is no exit."""
    exits = of_kind(path, "exit")
    return one(exits[0], 1, 0) if exits else None


def logs(directory, fold=None):
    """The transaction logs of a run directory, or of one of its folds, oldest first."""
    found = sorted(glob.glob(os.path.join(directory, "wandb", "offline-run-*", "run-*.wandb")))
    if fold is not None:
        with open(os.path.join(directory, "fold-%d" % fold, "wandb-run-id")) as file:
            name = "run-%s.wandb" % file.read()
        found = [path for path in found if os.path.basename(path) == name]
    return found
