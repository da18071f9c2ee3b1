"""Minimax coefficients of src/backend/cpu/vec.h: prints the polynomials of vf_exp and vf_normal.

Needs numpy and mpmath. Lawson's iteration (reweighted least squares on a Chebyshev grid) reaches the minimax
polynomial closely; the coefficients are rounded to float at the end.
"""

import mpmath
import numpy
from numpy.polynomial import chebyshev

mpmath.mp.dps = 30


def minimax(function, weight, low, high, degree, points=2000, rounds=800):
    """Coefficients, lowest power first, and the largest weighted error."""
    x = 0.5 * (low + high) + 0.5 * (high - low) * numpy.cos(numpy.pi * (numpy.arange(points) + 0.5) / points)
    y = numpy.array([float(function(mpmath.mpf(v))) for v in x])
    w = numpy.array([float(weight(mpmath.mpf(v))) for v in x])
    basis = chebyshev.chebvander((2 * x - low - high) / (high - low), degree)
    share = numpy.ones_like(x)
    best_error, best = numpy.inf, None
    for _ in range(rounds):
        scale = numpy.sqrt(share) * w
        c = numpy.linalg.lstsq(basis * scale[:, None], y * scale, rcond=None)[0]
        error = numpy.abs((basis @ c - y) * w)
        if error.max() < best_error:
            best_error, best = error.max(), c
        share *= error / error.max()
        share /= share.sum()
    polynomial = chebyshev.Chebyshev(best, domain=[low, high]).convert(kind=numpy.polynomial.Polynomial)
    return polynomial.coef, best_error


def show(name, coefficients, error):
    print(f"{name}: error {error:.2g}")
    for power, value in enumerate(coefficients):
        print(f"  x^{power}: {numpy.float32(value)!s}")


def exp_remainder(r):
    """(exp(r) - 1 - r) / r^2, by its series."""
    return sum(r**k / mpmath.factorial(k + 2) for k in range(20))


def main():
    reach = 0.505 * float(mpmath.log(2))  # a little more than ln(2)/2
    show("exp, q(r)", *minimax(exp_remainder, lambda r: r * r / mpmath.exp(r) + 1e-12, -reach, reach, 4))

    scale = 0.28  # u = scale a / (1 + scale a); Q(u) = 1/2 + u P(u), exact at 0
    argument = lambda u: u / (1 - u) / scale
    tail = lambda u: mpmath.erfc(argument(u) / mpmath.sqrt(2)) * mpmath.exp(argument(u) ** 2 / 2) / 2
    slope = lambda u: (tail(u) - mpmath.mpf(1) / 2) / u
    weight = lambda u: u * max(mpmath.exp(-argument(u) ** 2 / 2), mpmath.mpf("1e-3"))
    high = scale * 13.5 / (1 + scale * 13.5)
    show("normal tail, P(u)", *minimax(slope, weight, 1e-6, high, 7, points=400, rounds=400))


if __name__ == "__main__":
    main()
