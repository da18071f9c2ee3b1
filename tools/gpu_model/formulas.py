"""Device memory that a launch has to touch, read plus written, each byte once: by formula, so that real sizes cost no
emulation. `gpu-model --verify` holds every formula against the emulator's own count of different bytes on a small shape."""

import math

BF16, F32 = 2, 4
NORM_BLOCKS_GROUP = 16


def rows_of_products(launches):
    """The (rows, columns) of a column sum: those of the weight gradient that follows it in the same operation."""
    for i, launch in enumerate(launches):
        if launch.base == "column_sums_kernel":
            product = next(l for l in launches[i:] if l.kind == "product")
            _, O, T = product.numbers[:3]
            launch.numbers = (T, O)


def reach(launches):
    """R: rows of the position table in reach, from the first attention's products; None where they are other paths."""
    for launch in launches:
        if launch.kind == "product" and launch.op == "attention_bwd":
            return launch.numbers[1]
    return None


def rows_reached(s):
    """Rows of the position table that pairs of the longest sequence have (model_config.c); R is rounded up."""
    n, mid, most = s["max_len"] - 1, s["P"] // 4, s["P"]
    x = n if n <= mid else math.ceil(math.log(n / mid) / math.log((most - 1) / mid) * (mid - 1)) + mid
    return 2 * x + 1


def norm_partials(launch, C):
    blocks = launch.grid[0]
    return (blocks + -(-blocks // NORM_BLOCKS_GROUP)) * 2 * C * F32


def along_bytes(s):
    """dc2p or dp2c, rows rounded up to 16 bytes."""
    return s["H"] * s["T"] * -(-s["R"] // 8) * 8 * BF16


def kernel_bytes(launch, s):
    T, B, C, H, P, U, Y, R = (s[k] for k in ("T", "B", "C", "H", "P", "U", "Y", "R"))
    act = T * C * BF16
    along = along_bytes(s)
    gathered = min(U, s["A"]) * C * F32
    table = s["bucket"] + rows_reached(s) * 2 * C * BF16
    name, place = launch.base, launch.name
    if name == "add_norm_forward_kernel":
        return 4 * act + 2 * C * F32 + 2 * T * F32
    if name == "norm_forward_kernel":
        if launch.op == "embedding_fwd":
            return gathered + T * 4 + 2 * C * F32 + act + 2 * T * F32
        return P * C * (F32 + BF16) + 2 * C * F32 + 2 * P * F32
    if name == "norm_backward_kernel":
        sums = C * F32 + 4 * C * F32 + 2 * norm_partials(launch, C)
        if "(norm_place)0" in place:
            return 3 * act + 2 * T * F32 + sums
        if "(norm_place)1" in place:
            return 4 * P * C * F32 + 2 * P * F32 + sums
        return act + gathered + T * C * F32 + T * 4 + 2 * T * F32 + sums
    if name == "gelu_forward_kernel":
        return 2 * T * s["F"] * BF16
    if name == "gelu_backward_kernel":
        sums = s["F"] + C  # the bias gradients on both sides
        return 4 * T * s["F"] * BF16 + act + 2 * sums * F32 + 2 * launch.grid[1] * sums * F32
    if name == "column_sums_kernel":
        rows, O = launch.numbers
        return rows * O * BF16 + 2 * O * F32 + 2 * launch.grid[1] * O * F32
    if name == "dropout_backward_kernel":
        return P * C * (BF16 + 2 * F32)
    if name == "dropout_forward_kernel":
        return 2 * P * C * BF16
    if name == "attention_fwd_kernel":
        return 4 * act + table + H * T * F32
    if name == "attention_bwd_kernel":
        if ", 1, " in place:  # queries: also out, delta written and read, dq
            return 6 * act + table + 3 * H * T * F32 + along
        return 6 * act + table + 2 * H * T * F32 + along  # keys: dk and dv, out is not read
    if name == "add_segments_kernel":
        return T * C * F32 + T * 4 + (2 * U + 1) * 4 + 2 * gathered
    if name == "mean_pool_forward_kernel":
        return act + B * C * F32
    if name == "mean_pool_backward_kernel":
        return act + B * C * F32 + T * 4
    if name == "head_forward_kernel":
        return (B * C + Y * C + Y + B * Y) * F32
    if name == "head_backward_kernel":
        return (2 * B * C + 3 * Y * C + 2 * Y + B * Y) * F32
    if name in ("loss_forward_kernel", "loss_backward_kernel"):
        return 3 * B * Y * F32
    if name == "sum_squares_kernel":
        return s["arena"] * F32 + 2 * launch.grid[0] * 8
    if name == "adamw_kernel":
        return s["arena"] * (7 * F32 + BF16)
    if name == "cast_kernel":
        return s["arena"] * (F32 + BF16)
    raise SystemExit("gpu-model has no formula for the memory of " + launch.name)


def product_bytes(launch):
    _, _, _, _, a, b, c, d, _, _ = launch.numbers
    return a + b + c + d


def launch_bytes(launch, sizes):
    if launch.kind == "kernel":
        return kernel_bytes(launch, sizes)
    if launch.kind == "product":
        return product_bytes(launch)
    return launch.numbers[0]


def complete(step):
    """The sizes that formulas need and one_step does not know."""
    sizes = step.sizes
    rows_of_products(step.launches)
    sizes["R"] = reach(step.launches) or sizes["P"]
    sizes["bucket"] = (2 * sizes["max_len"] - 1) * 2
    return sizes
