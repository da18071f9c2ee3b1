"""Training steps of PyTorch + transformers on a GPU, on the made-up essays of fb3-dist bench: bf16 autocast, padded to the
longest essay, AdamW. Needs torch with CUDA and transformers; no weights are downloaded.

    python3 gpu_bench.py [--essays 8] [--model base] [--steps 20] [--device cuda]
"""
import argparse
import time

import torch
from transformers import DebertaV2Config, DebertaV2Model

LENGTHS = [186, 238, 277, 307, 337, 373, 401, 430, 461, 492, 512, 512, 512, 512, 512, 512]  # src/train/trial.c
SHAPES = {"tiny": (64, 2, 4, 128), "base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096)}


class Regressor(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = DebertaV2Model(config)
        self.drop = torch.nn.Dropout(0.2)
        self.fc = torch.nn.Linear(config.hidden_size, 6)

    def forward(self, ids, mask):
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return self.fc(self.drop((hidden * weight).sum(1) / weight.sum(1)))


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--essays", type=int, default=8)
    words.add_argument("--model", default="base", choices=SHAPES)
    words.add_argument("--steps", type=int, default=20)
    words.add_argument("--device", default="cuda")
    a = words.parse_args()
    hidden, layers, heads, inner = SHAPES[a.model]
    config = DebertaV2Config(
        vocab_size=14000, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm",
        share_att_key=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0, position_biased_input=False,
        max_position_embeddings=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-7)
    lengths = [LENGTHS[(2 * b + 1) * len(LENGTHS) // (2 * a.essays)] for b in range(a.essays)]
    longest = max(lengths)
    torch.manual_seed(1)
    model = Regressor(config).to(a.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(0, 14000, (a.essays, longest), device=a.device)
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths], device=a.device)
    target = torch.rand(a.essays, 6, device=a.device) * 4 + 1
    wait = torch.cuda.synchronize if a.device == "cuda" else lambda: None

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(a.device, dtype=torch.bfloat16):
            loss = torch.nn.functional.mse_loss(model(ids, mask).float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
        optimizer.step()

    for _ in range(3):
        step()
    wait()
    began = time.perf_counter()
    for _ in range(a.steps):
        step()
    wait()
    seconds = (time.perf_counter() - began) / a.steps
    peak = torch.cuda.max_memory_allocated() / 2**20 if a.device == "cuda" else float("nan")
    print("torch %s, transformers, %s, %d essays: %.1f ms a step, %.1f samples/s, %d tokens, peak %.0f MiB" %
          (torch.__version__, a.model, a.essays, 1e3 * seconds, a.essays / seconds, sum(lengths), peak))


if __name__ == "__main__":
    main()
