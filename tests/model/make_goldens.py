#!/usr/bin/env python3
"""Writes the golden files of tests/model and tests/optim that come from PyTorch and transformers.

    make_goldens.py OUT_MODEL_DIR OUT_OPTIM_DIR      (torch 2.13.0, transformers 5.23.0, numpy)

  state_dict.txt   name and shape of every tensor of DebertaV2Model, for five sizes
  config.json      what transformers' save_pretrained writes for the "tiny" size
  buckets.json     CRC-32 of transformers' position buckets (little-endian int16, -(reach-1) .. reach-1)
  parity.json      predictions, loss and gradients of small random models, in float64
  training.json    losses and end weights of AdamW steps, in float64
  schedule.json    transformers' get_scheduler, every step

Inputs are not stored: weights, token ids and targets come from an integer hash, which tests/model/fixture.c computes
the same way. Gradients are stored as sketches. A sketch sends every element e of a tensor to one of its buckets with a
sign, both taken from a hash of e, and adds up each bucket, in two independent rounds. An element that is off by d moves
its bucket by d in both rounds, so a bound on every bucket bounds every element; and the sum of squares of a sketched
difference estimates the difference's squared norm.
"""

import json
import os
import sys
import types
import zlib

import numpy as np
import torch
from transformers import DebertaV2Config, DebertaV2Model, get_scheduler

SIZES = {  # hidden, layers, heads, intermediate
    "xsmall": (384, 12, 6, 1536),
    "small": (768, 6, 12, 3072),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "tiny": (64, 2, 4, 128),
}
BUCKET_ELEMENTS = 256
ROUNDS = 2
BUCKET_REACH = 2048
MATRIX_VARIANCE, VECTOR_RANGE = 1.0, 0.1  # of a matrix, times its columns: scores of a few units at every width
U32 = np.uint64(0xFFFFFFFF)


def mix(x):
    """A bijection of 32-bit integers with good avalanche (Chris Wellons, "Prospecting for hash functions", lowbias32)."""
    x = np.asarray(x, dtype=np.uint64) & U32
    x = x ^ (x >> np.uint64(16))
    x = (x * np.uint64(0x7FEB352D)) & U32
    x = x ^ (x >> np.uint64(15))
    x = (x * np.uint64(0x846CA68B)) & U32
    return x ^ (x >> np.uint64(16))


def fnv1a(name):
    h = 2166136261
    for byte in name.encode():
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h


def hashes(stream, count):
    """Hash number e of a stream, e = 0 .. count - 1."""
    return mix(mix(stream) + np.arange(count, dtype=np.uint64))


def uniform(stream, count):
    """In [-1, 1), exact in float32."""
    return (hashes(stream, count) >> np.uint64(8)).astype(np.float64) / 2.0**23 - 1.0


def weights(name, shape):
    u = uniform(fnv1a(name), int(np.prod(shape)))
    if len(shape) == 2:
        w = np.sqrt(3.0 * MATRIX_VARIANCE / shape[1]) * u
    elif name.endswith("LayerNorm.weight"):
        w = 1.0 + VECTOR_RANGE * u
    else:
        w = VECTOR_RANGE * u
    return w.astype(np.float32).reshape(shape)


def batch(case, step=0):
    """Ragged ids, targets [B, Y] and global sample numbers of a case; every step has its own."""
    lengths = case["lengths"]
    if "steps" in case:  # training: the lengths rotate and shrink a little from step to step
        lengths = [max(1, lengths[(b + step) % len(lengths)] - step % 3) for b in range(len(lengths))]
    total = sum(lengths)
    ids = 1 + hashes(fnv1a("ids") + step, total) % np.uint64(case["vocab"] - 1)
    targets = 1.0 + 0.5 * (hashes(fnv1a("targets") + step, len(lengths) * case["targets"]) % np.uint64(9))
    samples = [1000 + 7 * b + 100 * step for b in range(len(lengths))]
    return lengths, ids.astype(np.int64), targets.reshape(len(lengths), case["targets"]), samples


def sketch(tensor):
    """[ROUNDS][buckets] signed bucket sums."""
    flat = tensor.reshape(-1).astype(np.float64)
    buckets = max(1, -(-flat.size // BUCKET_ELEMENTS))
    out = []
    for r in range(ROUNDS):
        h = hashes(fnv1a("sketch") + r, flat.size)
        sign = 1.0 - 2.0 * (h & np.uint64(1)).astype(np.float64)
        out.append(np.bincount((h >> np.uint64(1)).astype(np.int64) % buckets, sign * flat, buckets))
    return np.concatenate(out)


def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10, vectorised over c0. Returns four arrays."""
    c = [np.asarray(x, dtype=np.uint64) + np.zeros_like(c0) for x in (c0, c1, c2, c3)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            p1 & U32,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p0 & U32,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def keep(p, case, site, sample, count):
    """Dropout factors of elements 0 .. count - 1 of a sample: 0 or 1 / (1 - p), with p as float32."""
    groups = np.arange(-(-count // 4), dtype=np.uint64)
    words = philox(groups, site, sample, case["step"], *case["key"])
    p32 = float(np.float32(p))
    kept = np.stack(words, 1).reshape(-1)[:count].astype(np.float64) >= p32 * 2.0**32
    return kept / (1.0 - p32)


SITE_EMBEDDING, SITE_HEAD, SITE_LAYER = 0, 1, 16
PROBS, ATTENTION_OUT, FFN_OUT, POSITION = 0, 1, 2, 3
SAMPLE_POSITION = 0xFFFFFFFF


class Mask(torch.nn.Module):
    """Stands for nn.Dropout: multiplies by the masks that fb3-dist draws."""

    def __init__(self, p, case, site, lengths, samples):
        super().__init__()
        self.p, self.case, self.site, self.lengths, self.samples = p, case, site, lengths, samples

    def factors(self, shape):
        f = np.zeros(shape)
        for b, (n, sample) in enumerate(zip(self.lengths, self.samples)):
            if len(shape) == 4:  # attention probabilities [B, H, n, n]
                n4 = (n + 3) // 4 * 4
                f[b, :, :n, :n] = self.draw(sample, (shape[1], n, n4))[:, :, :n]
            elif len(shape) == 3:  # token rows [B, n, C]
                f[b, :n] = self.draw(sample, (n, shape[2]))
            else:  # one row a sample [B, C]
                f[b] = self.draw(sample, shape[1:])
        return f

    def draw(self, sample, shape):
        return keep(self.p, self.case, self.site, sample, int(np.prod(shape))).reshape(shape)

    def forward(self, x):
        return x * torch.from_numpy(self.factors(tuple(x.shape)))


class TableMask(Mask):
    """The position table [P, C] is one sequence of a pseudo sample."""

    def factors(self, shape):
        return self.draw(SAMPLE_POSITION, shape)


class Regressor(torch.nn.Module):
    """The model under test: encoder, mean over real tokens, dropout, linear head."""

    def __init__(self, case):
        super().__init__()
        self.model = DebertaV2Model(config(case))
        self.fc = torch.nn.Linear(case["hidden"], case["targets"])
        self.head_dropout = torch.nn.Identity()
        self.double()
        with torch.no_grad():
            for name, p in self.parameters_by_name():
                p.copy_(torch.from_numpy(weights(name, tuple(p.shape))))

    def parameters_by_name(self):
        return [(n.removeprefix("model."), p) for n, p in self.named_parameters()]

    def use_masks(self, case, lengths, samples):
        hidden, attention, head = case["dropout"]
        make = lambda cls, p, site: cls(p, case, site, lengths, samples)
        self.model.embeddings.dropout = make(Mask, hidden, SITE_EMBEDDING)
        self.head_dropout = make(Mask, head, SITE_HEAD)
        for l, layer in enumerate(self.model.encoder.layer):
            site = SITE_LAYER + 4 * l
            layer.attention.self.dropout = make(Mask, attention, site + PROBS)
            layer.attention.self.pos_dropout = make(TableMask, hidden, site + POSITION)
            layer.attention.output.dropout = make(Mask, hidden, site + ATTENTION_OUT)
            layer.output.dropout = make(Mask, hidden, site + FFN_OUT)

    def forward(self, lengths, ids):
        n = max(lengths)
        padded = torch.zeros(len(lengths), n, dtype=torch.long)
        mask = torch.zeros(len(lengths), n, dtype=torch.long)
        start = 0
        for b, length in enumerate(lengths):
            padded[b, :length] = torch.from_numpy(ids[start : start + length])
            mask[b, :length] = 1
            start += length
        hidden = self.model(padded, attention_mask=mask).last_hidden_state
        m = mask.unsqueeze(-1).double()
        return self.fc(self.head_dropout((hidden * m).sum(1) / m.sum(1)))


def config(case):
    return DebertaV2Config(
        vocab_size=case["vocab"],
        hidden_size=case["hidden"],
        num_hidden_layers=case["layers"],
        num_attention_heads=case["heads"],
        intermediate_size=case["intermediate"],
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=case.get("max_relative", 512),
        max_relative_positions=-1,
        position_buckets=case.get("buckets", 256),
        type_vocab_size=0,
        relative_attention=True,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        layer_norm_eps=1e-7,
        position_biased_input=False,
        pad_token_id=0,
        attn_implementation="eager",
    )


def loss_of(case, pred, target):
    d, beta = pred - target, case.get("beta", 1.0)
    return {
        "rmse": lambda: torch.sqrt(d**2 + 1e-9).mean(),
        "mse": lambda: torch.nn.functional.mse_loss(pred, target),
        "l1": lambda: torch.nn.functional.l1_loss(pred, target),
        "smooth_l1": lambda: torch.nn.functional.smooth_l1_loss(pred, target, beta=beta),
        "mcrmse": lambda: torch.sqrt((d**2).mean(0) + 1e-9).mean(),
    }[case["loss"]]()


def shape(hidden, layers, heads, intermediate, lengths, loss, targets=6, **more):
    return dict(
        hidden=hidden, layers=layers, heads=heads, intermediate=intermediate, vocab=200, targets=targets,
        lengths=lengths, loss=loss, dropout=[0.0, 0.0, 0.0], key=[0x1234ABCD, 0x9876FEDC], step=17, **more,
    )  # fmt: skip


PARITY = {
    "lengths from 1 to 700": shape(64, 2, 4, 128, [700, 1, 2, 129, 64, 257, 33], "rmse"),
    "one token": shape(32, 3, 4, 96, [1], "mse", targets=1),
    "heads of 32": shape(96, 2, 3, 96, [5, 33, 17, 300], "l1"),
    "smooth l1": shape(32, 2, 2, 64, [12, 40, 7], "smooth_l1", beta=0.5),
    "mcrmse": shape(32, 2, 1, 64, [9, 9, 31, 2], "mcrmse"),
    "other buckets": shape(32, 2, 2, 64, [100, 20, 3], "mse", buckets=32, max_relative=64),
    "all dropouts": shape(32, 2, 2, 64, [41, 9, 150], "rmse") | dict(dropout=[0.1, 0.25, 0.2]),
}

TRAINING = shape(
    32, 2, 2, 64, [12, 40, 7, 23], "rmse", steps=50, learning_rate=1e-3, weight_decay=1e-2, epsilon=1e-6, max_norm=2.0,
    warmup=5,
)  # fmt: skip


def numbers(values):
    return [float(f"{float(v):.8g}") for v in np.asarray(values).reshape(-1)]


def summary(name, tensor):
    t = tensor.detach().numpy()
    return dict(name=name, max=float(np.abs(t).max()), sketch=numbers(sketch(t)))


def parity(name, case):
    model = Regressor(case).train()
    lengths, ids, targets, samples = batch(case)
    if any(case["dropout"]):
        model.use_masks(case, lengths, samples)
    pred = model(lengths, ids)
    loss = loss_of(case, pred, torch.from_numpy(targets))
    loss.backward()
    tensors = [summary(n, p.grad) for n, p in model.parameters_by_name()]
    return dict(name=name, case=case, pred=numbers(pred.detach()), loss=loss.item(), tensors=tensors)


def training(case):
    model = Regressor(case).train()
    named = model.parameters_by_name()
    plain = lambda n: n.endswith("bias") or "LayerNorm.weight" in n
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if not plain(n)], "weight_decay": case["weight_decay"]},
            {"params": [p for n, p in named if plain(n)], "weight_decay": 0.0},
        ],
        lr=case["learning_rate"],
        eps=case["epsilon"],
    )
    scheduler = get_scheduler("linear", optimizer, case["warmup"], case["steps"])
    start = {n: p.detach().clone() for n, p in named}
    losses, norms = [], []
    for step in range(case["steps"]):
        lengths, ids, targets, _ = batch(case, step)
        loss = loss_of(case, model(lengths, ids), torch.from_numpy(targets))
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), case["max_norm"]).item())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    tensors = [summary(n, p) | dict(moved=(p - start[n]).norm().item()) for n, p in named]
    return dict(case=case, losses=numbers(losses), norms=numbers(norms), tensors=tensors)


def state_dict_lines():
    for size, (hidden, layers, heads, intermediate) in SIZES.items():
        case = dict(hidden=hidden, layers=layers, heads=heads, intermediate=intermediate, vocab=128100)
        with torch.device("meta"):
            model = DebertaV2Model(config(case))
        yield f"# {size} {hidden} {layers} {heads} {intermediate}"
        for name, tensor in model.state_dict().items():
            yield " ".join([name] + [str(n) for n in tensor.shape])


def write_config(path):
    hidden, layers, heads, intermediate = SIZES["tiny"]
    case = dict(hidden=hidden, layers=layers, heads=heads, intermediate=intermediate, vocab=128100)
    with open(path, "w", encoding="utf-8") as f:
        f.write(config(case).to_json_string())


def buckets():
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    delta = torch.arange(1 - BUCKET_REACH, BUCKET_REACH)
    for b, m in ((256, 512), (32, 64), (64, 512), (256, 1024), (10, 512)):
        values = make_log_bucket_position(delta, b, m).numpy().astype("<i2")
        yield dict(buckets=b, max_relative=m, reach=BUCKET_REACH, crc32=zlib.crc32(values.tobytes()))


def schedules():
    cases = [
        ("linear", 10, 100, {}), ("linear", 0, 7, {}), ("linear", 20, 20, {}), ("cosine", 10, 100, {}),
        ("cosine", 3, 50, {"num_cycles": 2.0}), ("constant", 5, 20, {}), ("constant_with_warmup", 6, 20, {}),
        ("polynomial", 10, 100, {}), ("polynomial", 0, 60, {"power": 3.0, "lr_end": 2e-6}),
    ]  # fmt: skip
    for name, warmup, total, kwargs in cases:
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=1e-5)
        scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=kwargs)
        factor = scheduler.lr_lambdas[0]
        yield dict(type=name, warmup=warmup, total=total, kwargs=kwargs, factors=[factor(s) for s in range(total + 3)])


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        f.write(pretty(value) + "\n")


def pretty(value, depth=0):
    """JSON with one line per list of numbers."""
    pad, end = " " * (depth + 1), " " * depth
    if isinstance(value, types.GeneratorType):
        value = list(value)
    if isinstance(value, dict) and any(isinstance(v, (list, dict)) for v in value.values()):
        items = [f"{pad}{json.dumps(k)}: {pretty(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{end}}}"
    if isinstance(value, list) and any(isinstance(v, (list, dict)) for v in value):
        return "[\n" + ",\n".join(pad + pretty(v, depth + 1) for v in value) + f"\n{end}]"
    return json.dumps(value, separators=(",", ":"))


def main():
    model_dir, optim_dir = sys.argv[1:3]
    torch.set_num_threads(2)
    os.makedirs(model_dir, exist_ok=True)
    os.makedirs(optim_dir, exist_ok=True)
    with open(os.path.join(model_dir, "state_dict.txt"), "w", encoding="utf-8") as f:
        f.writelines(line + "\n" for line in state_dict_lines())
    write_config(os.path.join(model_dir, "config.json"))
    write_json(os.path.join(model_dir, "buckets.json"), buckets())
    write_json(os.path.join(model_dir, "parity.json"), [parity(name, case) for name, case in PARITY.items()])
    write_json(os.path.join(optim_dir, "training.json"), training(TRAINING))
    write_json(os.path.join(optim_dir, "schedule.json"), schedules())


if __name__ == "__main__":
    main()
