#!/usr/bin/env python3
"""Reads exported directories with Python's standard library alone and checks every byte of the weights.

check_export.py DIRECTORY...: values are those of make_goldens.py's tensor(); this reader shares no code with the
program. The pickle is read by pickletools, so nothing in it is run.
"""
import json
import os
import pickletools
import struct
import sys
import zipfile
import zlib

SIZES = {"F32": 4, "F16": 2, "BF16": 2}
STORAGES = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"}


def golden(name, count):
    crc = zlib.crc32(name.encode())
    return [((i * 37 + crc) % 251 - 125) / 64 for i in range(count)]


def decode(data, dtype):
    count = len(data) // SIZES[dtype]
    if dtype == "F32":
        return list(struct.unpack(f"<{count}f", data))
    if dtype == "F16":
        return list(struct.unpack(f"<{count}e", data))
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0, "the data are not aligned"
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    assert header.pop("__metadata__") == {"format": "pt"}
    end = 0
    for entry in sorted(header.values(), key=lambda e: e["data_offsets"]):
        assert entry["data_offsets"][0] == end, "a hole or an overlap"
        end = entry["data_offsets"][1]
    assert end == len(data), "bytes behind the last tensor"
    return {n: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for n, e in header.items()}


MARK = object()


def unpickle(data):
    """The root of a state dict's pickle; calls become tuples ("call", function, arguments), globals their names."""
    stack = []

    def items():
        at = len(stack) - 1 - stack[::-1].index(MARK)
        taken = stack[at + 1:]
        del stack[at:]
        return taken

    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "PROTO":
            assert argument == 2
        elif name == "GLOBAL":
            stack.append(argument.replace(" ", "."))
        elif name == "MARK":
            stack.append(MARK)
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            stack.append(tuple(items()))
        elif name in ("BINUNICODE", "BININT", "LONG1"):
            stack.append(argument)
        elif name == "NEWFALSE":
            stack.append(False)
        elif name == "BINPERSID":
            stack.append(("storage",) + stack.pop()[1:])
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append({} if function == "collections.OrderedDict" else ("call", function, arguments))
        elif name == "SETITEMS":
            pairs = items()
            stack[-1].update(zip(pairs[::2], pairs[1::2]))
        elif name == "STOP":
            (root,) = stack
            return root
        else:
            raise AssertionError(f"opcode {name}")


def read_torch(path):
    """{name: (dtype, shape, bytes)}"""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(m.compress_type == zipfile.ZIP_STORED for m in archive.infolist())
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    folders = {m.split("/")[0] for m in members}
    assert len(folders) == 1
    folder = folders.pop()
    assert members[folder + "/byteorder"] == b"little" and members[folder + "/version"] == b"3\n"
    state = {}
    for name, (call, function, arguments) in unpickle(members[folder + "/data.pkl"]).items():
        (tag, kind, key, location, elements), offset, shape, stride, grad, hooks = arguments
        assert (call, function) == ("call", "torch._utils._rebuild_tensor_v2")
        assert (tag, location, offset, grad, hooks) == ("storage", "cpu", 0, False, {})
        assert stride == ((shape[1], 1) if len(shape) == 2 else (1,))
        dtype, data = STORAGES[kind.removeprefix("torch.")], members[f"{folder}/data/{key}"]
        assert len(data) == elements * SIZES[dtype]
        state[name.removeprefix("model.")] = (dtype, list(shape), data)
        assert name.startswith("model.") != name.startswith("fc.")
    return state


def check(folder):
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    path = os.path.join(folder, "model.safetensors")
    state = read_safetensors(path) if os.path.exists(path) else read_torch(os.path.join(folder, "pytorch_model.bin"))
    wanted = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[config["torch_dtype"]]
    assert len(state) == 8 + 16 * config["num_hidden_layers"]
    assert state["embeddings.word_embeddings.weight"][1] == [config["vocab_size"], config["hidden_size"]]
    assert state["fc.weight"][1] == [len(config["id2label"]), config["hidden_size"]]
    for name, (dtype, shape, data) in state.items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        assert dtype == wanted and len(data) == count * SIZES[dtype], name
        assert decode(data, dtype) == golden(name, count), name
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"):
        with open(os.path.join(folder, name)) as file:
            assert json.load(file)
    print(f"{folder}: {len(state)} tensors of {wanted} are as they should be")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        check(argument)
