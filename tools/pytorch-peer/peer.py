"""What the scripts of this folder share: tokens, batches, the model with its head, losses, parameter groups."""

import csv

import sentencepiece
import torch
from transformers import DebertaV2Config, DebertaV2Model

CLS, SEP, UNK = 1, 2, 3
FIRST_BYTE_PIECE, LAST_BYTE_PIECE = 4, 259
SCORES = ("cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions")
SIZES = {  # hidden, layers, heads, intermediate
    "xsmall": (384, 12, 6, 1536),
    "small": (768, 6, 12, 3072),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "scratch": (128, 2, 2, 512),
}


class Tokenizer:
    """The fast tokenizer's ids from spm.model: a run of byte pieces is one [UNK]. Special tokens that are written in a
    text are not recognised."""

    def __init__(self, model_file=None, model_proto=None):
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=model_file, model_proto=model_proto)

    def __call__(self, text, max_length):
        ids = []
        for i in self.pieces.encode(text):
            if FIRST_BYTE_PIECE <= i <= LAST_BYTE_PIECE:
                if not ids or ids[-1] != UNK:
                    ids.append(UNK)
            else:
                ids.append(i)
        return [CLS] + ids[: max_length - 2] + [SEP]


def read_csv(path, id_column="text_id", text_column="full_text", columns=SCORES):
    """{id: (text, scores)} in the order of the file."""
    with open(path, newline="", encoding="utf-8-sig") as f:
        return {r[id_column]: (r[text_column], [float(r[c]) for c in columns]) for r in csv.DictReader(f)}


def pad(token_lists, length=None):
    """ids and mask [B, n]."""
    n = length or max(map(len, token_lists))
    ids = torch.zeros(len(token_lists), n, dtype=torch.long)
    mask = torch.zeros(len(token_lists), n, dtype=torch.long)
    for b, tokens in enumerate(token_lists):
        ids[b, : len(tokens)] = torch.tensor(tokens)
        mask[b, : len(tokens)] = 1
    return ids, mask


def v3_config(hidden, layers, heads, intermediate, vocab=128100, buckets=256, dropout=0.0):
    return DebertaV2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        hidden_act="gelu",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=512,
        max_relative_positions=-1,
        position_buckets=buckets,
        type_vocab_size=0,
        relative_attention=True,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        layer_norm_eps=1e-7,
        position_biased_input=False,
        pad_token_id=0,
    )


class Regressor(torch.nn.Module):
    """Encoder, mean over the real tokens, dropout, linear head. State dict: model.*, fc.*"""

    def __init__(self, config, targets=len(SCORES), head_dropout=0.0):
        super().__init__()
        self.model = DebertaV2Model(config)
        self.dropout = torch.nn.Dropout(head_dropout)
        self.fc = torch.nn.Linear(config.hidden_size, targets)

    def forward(self, ids, mask):
        hidden = self.model(ids, attention_mask=mask).last_hidden_state
        m = mask.unsqueeze(-1).to(hidden.dtype)
        return self.fc(self.dropout((hidden * m).sum(1) / m.sum(1)))


def loss_of(kind, pred, target, beta=1.0):
    d = pred - target
    if kind in ("rmse", "l1_eps"):
        return torch.sqrt(d**2 + 1e-9).mean()
    if kind == "mcrmse":
        return torch.sqrt((d**2).mean(0) + 1e-9).mean()
    if kind == "mse":
        return (d**2).mean()
    if kind == "l1":
        return d.abs().mean()
    return torch.nn.functional.smooth_l1_loss(pred, target, beta=beta)


def groups(model, weight_decay):
    """AdamW's groups: no decay on biases and LayerNorm weights."""
    plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm.weight" in n]
    decayed = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "LayerNorm.weight" in n)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def mcrmse(pred, target):
    return ((pred - target) ** 2).mean(0).sqrt().mean().item()
