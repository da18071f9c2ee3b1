"""The step waits for the rank with the most work: essays have lengths, and a rank has few of them.

Repeats how the program deals a global batch (fb3_sample_cost and fb3_deal_ranks in src/data/sampler.c): equal counts,
then the longest essay to the rank with the least work. Lengths are drawn from those of src/train/trial.c (M: 16 of
2,057 real essays, cut at 512)."""

import functools
import heapq
import random

LENGTHS = (186, 238, 277, 307, 337, 373, 401, 430, 461, 492, 512, 512, 512, 512, 512, 512)
ROUNDS_ESSAYS = 20000  # essays drawn in all for one number


def cost(length, hidden):
    return length * (24.0 * hidden * hidden + 8.0 * hidden * length)


def deal(costs, ranks):
    """Work of each rank."""
    most, extra = divmod(len(costs), ranks)
    room = [most + (r < extra) for r in range(ranks)]
    loads, done = [(0.0, r) for r in range(ranks) if room[r]], [0.0] * ranks
    for c in sorted(costs, reverse=True):
        load, r = heapq.heappop(loads)
        done[r], room[r] = load + c, room[r] - 1
        if room[r]:
            heapq.heappush(loads, (load + c, r))
    return done


@functools.lru_cache(maxsize=None)
def imbalance(essays, ranks, hidden):
    """The longest rank's work over `essays / ranks` average essays' (at least one)."""
    if ranks == 1:
        return 1.0
    chance, rounds, total = random.Random(essays * 4096 + ranks), max(3, ROUNDS_ESSAYS // essays), 0.0
    mean = sum(cost(n, hidden) for n in LENGTHS) / len(LENGTHS)
    for _ in range(rounds):
        work = deal([cost(chance.choice(LENGTHS), hidden) for _ in range(essays)], ranks)
        total += max(work)
    return total / rounds / mean / -(-essays // ranks)
