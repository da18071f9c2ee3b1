"""The kernels of the eager Hugging Face graph for the same step, listed by hand from transformers' DebertaV2 (v3 models:
share_att_key, c2p|p2c, buckets) and PyTorch's autocast, as they are in transformers 4.4x to 5.x. Not traced: a list to read
and correct.

Sizes: N = B n tokens, padded to the longest (n); G = B H; S = G n n pairs; P rows of the position table; C, F, D as ever.
bf16 autocast: linear layers and bmm in bf16, softmax and LayerNorm in fp32, weights cast once a forward pass, activations
cast again by every linear layer that takes them. Dropout off. AdamW (foreach) over the whole word table, gradient norm and
clipping by foreach. Every row is (group, kernel, how often, bytes, strided?) or a product."""

from dataclasses import dataclass

VOCABULARY = 128100


@dataclass
class Row:
    group: str
    name: str
    count: float
    nbytes: float = 0
    strided: bool = False
    product: tuple = ()  # M, N, K, batch


class List:
    def __init__(self):
        self.rows = []

    def pointwise(self, group, name, nbytes, count=1, strided=False):
        self.rows.append(Row(group, name, count, nbytes, strided))

    def product(self, group, name, M, N, K, batch=1, count=1, out=2):
        nbytes = 2.0 * batch * (M * K + K * N) + out * batch * M * N
        self.rows.append(Row(group, name, count, nbytes, product=(M, N, K, batch)))


def layer_forward(s):
    B, n, C, F, H, P = s["B"], s["max_len"], s["C"], s["F"], s["H"], s["P"]
    D, N, G = C // H, B * n, B * H
    NC, NF, S = N * C, N * F, G * n * n
    l = List()
    l.pointwise("casts", "autocast: hidden states to bf16, for query, key and value each", 6 * NC, 3)
    l.pointwise("casts", "autocast: query, key, value, output weights to bf16", 6 * C * C, 4)
    l.pointwise("casts", "autocast: feed-forward weights to bf16", 6 * C * F, 2)
    l.pointwise("casts", "autocast: biases to bf16", 6 * C, 6)
    l.product("products", "query, key, value projections", N, C, C, count=3)
    l.pointwise("transposes", "transpose_for_scores: permute + contiguous", 4 * NC, 3, True)
    l.pointwise("attention pointwise", "key / scale", 4 * NC)
    l.product("attention products", "q k^T", n, n, D, G)
    l.pointwise("casts", "autocast: rel_embeddings to bf16", 6 * P * C, 2)
    l.product("products", "position projections", P, C, C, count=2)
    l.pointwise("transposes", "position transpose_for_scores", 4 * P * C, 2, True)
    l.pointwise("transposes", "position .repeat(B, 1, 1)", 2 * P * C + 2 * B * P * C, 2)
    l.product("attention products", "c2p, p2c", n, P, D, G, count=2)
    l.pointwise("gathers", "indices: + span, clamp, negate, + span, clamp (int64, one n x n)", 16 * n * n, 5)
    l.pointwise("gathers", "gather c2p, p2c by an expanded index", 2 * G * n * P + 2 * S + 8 * n * n, 2, True)
    l.pointwise("attention pointwise", "c2p / scale", 4 * S)
    l.pointwise("attention pointwise", "p2c^T / scale", 4 * S, strided=True)
    l.pointwise("attention pointwise", "0 + c2p", 4 * S)
    l.pointwise("attention pointwise", "score + p2c; scores + rel_att", 6 * S, 2)
    l.pointwise("attention pointwise", "mask.bool, ~mask", 2 * B * n * n, 2)
    l.pointwise("attention pointwise", "masked_fill", 4 * S + B * n * n)
    l.pointwise("softmax", "autocast: scores to fp32", 6 * S)
    l.pointwise("softmax", "softmax (fp32)", 8 * S)
    l.pointwise("softmax", "autocast: probabilities to bf16", 6 * S)
    l.product("attention products", "p v", n, D, n, G)
    l.pointwise("transposes", "context: permute + contiguous", 4 * NC, 1, True)
    l.product("products", "attention output", N, C, C)
    l.pointwise("residual, LayerNorm", "residual sums (bf16 + fp32)", 10 * NC, 2)
    l.pointwise("residual, LayerNorm", "LayerNorm (fp32)", 8 * NC, 2)
    l.pointwise("casts", "autocast: hidden states to bf16, for feed-forward in", 6 * NC)
    l.product("products", "feed-forward in", N, F, C)
    l.pointwise("GELU", "GELU", 4 * NF)
    l.product("products", "feed-forward out", N, C, F)
    return l.rows


def linear_backward(l, name, T, I, O, count=1, bias=True):
    l.product("products", name + ": input gradient", T, I, O, count=count)
    l.product("products", name + ": weight gradient (bf16)", O, I, T, count=count)
    if bias:
        l.pointwise("bias sums", name + ": bias gradient", 2 * T * O, count)
    l.pointwise("casts", name + ": weight gradient to fp32", 6 * I * O, count)
    l.pointwise("casts", name + ": bias gradient to fp32", 6 * O, count)


def layer_backward(s):
    B, n, C, F, H, P = s["B"], s["max_len"], s["C"], s["F"], s["H"], s["P"]
    D, N, G = C // H, B * n, B * H
    NC, NF, S = N * C, N * F, G * n * n
    l = List()
    l.pointwise("residual, LayerNorm", "LayerNorm backward: dx", 12 * NC, 2)
    l.pointwise("residual, LayerNorm", "LayerNorm backward: dgamma, dbeta", 8 * NC, 2)
    l.pointwise("casts", "residual branch's gradient to bf16", 6 * NC, 2)
    linear_backward(l, "feed-forward out", N, F, C)
    l.pointwise("GELU", "GELU backward", 6 * NF)
    linear_backward(l, "feed-forward in", N, C, F)
    l.pointwise("casts", "input gradients to fp32: feed-forward, query, key, value", 6 * NC, 4)
    l.pointwise("residual, LayerNorm", "sums of gradients at the two skips (fp32)", 12 * NC, 4)
    linear_backward(l, "attention output", N, C, C)
    l.pointwise("transposes", "context gradient: permute + contiguous", 4 * NC, 1, True)
    l.product("attention products", "dout v^T", n, n, D, G)
    l.product("attention products", "p^T dout", n, D, n, G)
    l.pointwise("softmax", "probability gradient to fp32", 6 * S)
    l.pointwise("softmax", "softmax backward (fp32)", 12 * S)
    l.pointwise("softmax", "score gradient to bf16", 6 * S)
    l.pointwise("attention pointwise", "masked_fill backward", 4 * S + B * n * n)
    l.pointwise("attention pointwise", "c2p, p2c / scale, backward", 4 * S, 2)
    l.pointwise("gathers", "gather backward: zeros [G, n, P]", 2 * G * n * P, 2)
    l.pointwise("gathers", "gather backward: scatter_add", 4 * S + 4 * G * n * P, 2, True)
    l.product("attention products", "c2p, p2c backward to q, k", n, D, P, G, count=2)
    l.product("attention products", "c2p, p2c backward to the position rows", P, D, n, G, count=2)
    l.product("attention products", "q k^T backward", n, D, n, G, count=2)
    l.pointwise("attention pointwise", "key / scale, backward", 4 * NC)
    l.pointwise("attention pointwise", "sums of two gradients of q, of k", 6 * NC, 2)
    l.pointwise("transposes", "repeat backward: sum over the batch", 2 * B * P * C, 2)
    l.pointwise("transposes", "position gradients: permute + contiguous", 4 * P * C, 2, True)
    linear_backward(l, "position projections", P, C, C, 2)
    l.pointwise("casts", "rel_embeddings' gradient to fp32, and its sum", 12 * P * C, 4)
    l.pointwise("attention pointwise", "query, key weights: sum of two gradients", 6 * C * C, 2)
    l.pointwise("transposes", "q, k, v gradients: permute + contiguous", 4 * NC, 3, True)
    linear_backward(l, "query, key, value projections", N, C, C, 3)
    return l.rows


def outside(s):
    B, n, C, P, L, F = s["B"], s["max_len"], s["C"], s["P"], s["L"], s["F"]
    N = B * n
    NC, words = N * C, VOCABULARY * C
    parameters = words + P * C + L * (4 * C * C + 2 * C * F + 9 * C + F)
    chunks = lambda bytes_of_each: -(-parameters // (320 << 16)) + 1  # of multi_tensor_apply: 320 blocks of 65536 values
    l = List()
    l.pointwise("embedding", "embedding, its LayerNorm, mask", 8 * NC + 8 * NC + 8 * NC)
    l.pointwise("embedding", "relative positions and masks, once a step", 8 * n * n, 12)
    l.pointwise("embedding", "rel_embeddings' LayerNorm, forward and backward", 8 * P * C, 4)
    l.pointwise("embedding", "LayerNorm and mask backward", 12 * NC, 3)
    l.pointwise("embedding", "dense gradient of the word table: zeros", 4 * words)
    l.pointwise("embedding", "dense gradient of the word table: sort and add", 8 * NC, 6, True)
    l.pointwise("head", "pooling, head, loss, forward and backward", 4 * NC, 24)
    l.pointwise("clipping", "foreach norm", 4 * parameters / chunks(4), chunks(4))
    l.pointwise("clipping", "foreach multiply", 8 * parameters / chunks(8), chunks(8))
    for name, each in (("p *= 1 - lr decay", 8), ("lerp of the first moment", 12), ("second moment *= beta2", 8),
                       ("addcmul", 12), ("sqrt", 8), ("/ correction", 8), ("+ eps", 8), ("addcdiv", 16)):
        l.pointwise("AdamW", "foreach " + name, each * parameters / chunks(each), chunks(each))
    return l.rows
