#!/usr/bin/env python3
"""Makes tests/io/golden: small weights files as torch.save and safetensors write them.

Needs torch, safetensors and sentencepiece (made with torch 2.13, safetensors 0.8, sentencepiece 0.2.3); CI only reads
the files. Every value is a function of the tensor's canonical name and the element's index that is exact in float32,
float16 and bfloat16 (io_test.h has the same function), so a test can check all of them without a second copy.
"""
import collections
import json
import os
import zlib

import numpy
import safetensors.torch
import sentencepiece
import torch

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
CONFIG = dict(
    model_type="deberta-v2", vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=32, hidden_act="gelu", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    max_position_embeddings=16, max_relative_positions=-1, position_buckets=8, relative_attention=True,
    norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p", layer_norm_eps=1e-7,
    position_biased_input=False, type_vocab_size=0, initializer_range=0.02, pad_token_id=0)
TARGETS = 2


def shapes():
    """DebertaV2Model's state dict for CONFIG, by name."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    made = {"embeddings.word_embeddings.weight": (CONFIG["vocab_size"], hidden)}

    def norm(name):
        made[name + ".weight"] = made[name + ".bias"] = (hidden,)

    def linear(name, outputs, inputs):
        made[name + ".weight"], made[name + ".bias"] = (outputs, inputs), (outputs,)

    norm("embeddings.LayerNorm")
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        for projection in ("query_proj", "key_proj", "value_proj"):
            linear(prefix + "attention.self." + projection, hidden, hidden)
        linear(prefix + "attention.output.dense", hidden, hidden)
        norm(prefix + "attention.output.LayerNorm")
        linear(prefix + "intermediate.dense", inner, hidden)
        linear(prefix + "output.dense", hidden, inner)
        norm(prefix + "output.LayerNorm")
    made["encoder.rel_embeddings.weight"] = (2 * CONFIG["position_buckets"], hidden)
    norm("encoder.LayerNorm")
    return made


def tensor(name, shape, dtype=torch.float32):
    count = int(numpy.prod(shape))
    values = ((numpy.arange(count) * 37 + zlib.crc32(name.encode())) % 251 - 125) / 64
    return torch.tensor(values.reshape(shape), dtype=dtype)


def encoder(dtype, prefix=""):
    return collections.OrderedDict((prefix + n, tensor(n, s, dtype)) for n, s in shapes().items())


def head(dtype):
    return {n: tensor(n, s, dtype) for n, s in (("fc.weight", (TARGETS, CONFIG["hidden_size"])), ("fc.bias", (TARGETS,)))}


def folder(name, **more):
    path = os.path.join(HERE, name)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(CONFIG | more, file, indent=1)
        file.write("\n")
    return path


def plain():
    """Our own names, with a head and label names."""
    path = folder("plain", id2label={"0": "cohesion", "1": "syntax"})
    safetensors.torch.save_file(encoder(torch.float32) | head(torch.float32), os.path.join(path, "model.safetensors"),
                                metadata={"format": "pt"})
    with open(os.path.join(path, "tokenizer_config.json"), "w") as file:
        file.write('{"model_max_length": 512}\n')


def hub():
    """As the hub has v3-base: half precision, prefix, heads of pre-training, merged embedding differences."""
    path, dtype, prefix = folder("hub"), torch.float16, "deberta."
    state = encoder(dtype, prefix)
    state["deberta.embeddings.word_embeddings._weight"] = torch.ones(40, 16, dtype=dtype)
    state["deberta.embeddings.position_embeddings.weight"] = torch.ones(16, 16, dtype=dtype)
    state["deberta.embeddings.position_ids"] = torch.arange(16).reshape(1, 16)
    state["lm_predictions.lm_head.bias"] = torch.ones(40, dtype=dtype)
    state["lm_predictions.lm_head.dense.weight"] = torch.ones(16, 16, dtype=dtype)
    state["mask_predictions.dense.weight"] = torch.ones(16, 16, dtype=dtype)
    state["mask_predictions.classifier.bias"] = torch.ones(1, dtype=dtype)
    torch.save(state, os.path.join(path, "pytorch_model.bin"))


def bfloat16():
    """bfloat16, a module's prefix, the old names of LayerNorm."""
    path = folder("bfloat16")
    rename = lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    state = {rename(n): t for n, t in encoder(torch.bfloat16, "model.").items()}
    safetensors.torch.save_file(state, os.path.join(path, "model.safetensors"))


def nested():
    """A training script's file: parameters, query, key and value as views of one storage, a wrapper around it."""
    path, state = folder("nested"), encoder(torch.float32)
    names = [f"encoder.layer.0.attention.self.{p}_proj.weight" for p in ("query", "key", "value")]
    one = torch.cat([state[n] for n in names])
    for i, name in enumerate(names):
        state[name] = one[16 * i:16 * (i + 1)]
    state = collections.OrderedDict(("module.model." + n, t) for n, t in state.items())
    state |= {"module." + n: torch.nn.Parameter(t) for n, t in head(torch.float32).items()}
    torch.save({"epoch": 3, "best": 0.45, "names": ["a", None, True], "model": state, "optimizer": {"state": {0: {}}}},
               os.path.join(path, "pytorch_model.bin"))


def odd():
    """What is read as a list, not as a model."""
    base = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    torch.save({"transposed": base.T, "offset": base[1], "scalar": torch.tensor(2.5, dtype=torch.float64),
                "empty": torch.zeros(0, 4), "integers": torch.arange(3)}, os.path.join(HERE, "odd.bin"))
    safetensors.torch.save_file({"real": torch.tensor([0.1, 1e-320], dtype=torch.float64), "scalar": torch.tensor(2.5),
                                 "empty": torch.zeros(0, 4), "integers": torch.arange(3), "bits": torch.tensor([True])},
                                os.path.join(HERE, "odd.safetensors"))
    torch.save(head(torch.float32), os.path.join(HERE, "legacy.bin"), _use_new_zipfile_serialization=False)
    torch.save({"a": head(torch.float32), "b": head(torch.float32)}, os.path.join(HERE, "ambiguous.bin"))
    torch.save({"weights": head(torch.float32), "predictions": numpy.zeros(2)}, os.path.join(HERE, "numpy.bin"))


def tokenizer():
    """A unigram model with DeBERTa's special pieces and byte fallback."""
    words = "the essay shows that students write about their school and what they would change in it".split()
    lines = (" ".join(words[i % 16:i % 16 + 5] + words[:i % 7]) for i in range(200))
    with open(os.path.join(HERE, "spm.model"), "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=file, vocab_size=320, model_type="unigram", byte_fallback=True,
            pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
            unk_piece="[UNK]", normalization_rule_name="identity", hard_vocab_limit=False, minloglevel=2)


if __name__ == "__main__":
    for make in (plain, hub, bfloat16, nested, odd, tokenizer):
        make()
