"""What is summed over the ranks: the ranges of the gradient arena, in the order in which the backward pass posts them.

By formula from the model's shape, as src/model/param_table.c lays them out: the head; each layer, the last first; then
what closes last: rel_embeddings, its LayerNorm, the embeddings' LayerNorm, the active rows of the word table."""

from dataclasses import dataclass

FLOAT = 4
TARGETS = 6
POSITIONS = 512
VOCABULARY = 128100
ACTIVE_ROWS = 14600  # M: different tokens of 2,057 real essays (DESIGN 3)
OFFSET_MULTIPLE = 16  # floats: where a parameter may start
PIECE = 4 << 20  # bytes, src/comm/allreduce_mpi.c


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    intermediate: int


SHAPES = {"tiny": Shape(64, 2, 128), "deberta-v3-xsmall": Shape(384, 12, 1536), "deberta-v3-small": Shape(768, 6, 3072),
          "deberta-v3-base": Shape(768, 12, 3072), "deberta-v3-large": Shape(1024, 24, 4096)}

# The counts of DESIGN 4: parameters without the head, the whole word table.
PUBLISHED = {"deberta-v3-xsmall": 70682112, "deberta-v3-small": 141304320, "deberta-v3-base": 183831552,
             "deberta-v3-large": 434012160}


def parameters_of(shape, active):
    """Sizes of the parameters of each range, in order."""
    C, F = shape.hidden, shape.intermediate
    head = [TARGETS * C, TARGETS]
    layer = 3 * [C * C] + 3 * [C] + [C * C, C, C, C, C * F, F, C * F, C, C, C]
    last = [POSITIONS * C, C, C, C, C, active * C]
    return [head] + shape.layers * [layer] + [last]


def ranges(preset, active=ACTIVE_ROWS):
    """Bytes of each range."""
    padded = lambda n: -(-n // OFFSET_MULTIPLE) * OFFSET_MULTIPLE
    return [FLOAT * sum(padded(n) for n in sizes) for sizes in parameters_of(SHAPES[preset], active)]


def pieces(nbytes):
    """Elements of the pieces that a range is cut into where MPI sums it."""
    whole, rest = divmod(nbytes // FLOAT, PIECE // FLOAT)
    return whole * [PIECE // FLOAT] + [rest] * (rest > 0)
