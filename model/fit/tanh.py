#!/usr/bin/env python3
"""Fits the constants of tanh in model/src/cell/tanh.rs: x P(x^2) / Q(x^2) on |x| <= FLAT.

Needs mpmath. Minimises the largest absolute error by weighted least squares whose weights follow
the error (Lawson), on Chebyshev points; prints the constants and what is left of the error.
"""

import sys

import mpmath as mp

mp.mp.dps = 60
FLAT = mp.mpf(sys.argv[1]) if len(sys.argv) > 1 else mp.mpf("8.6")
ABOVE, BELOW = 5, 5  # coefficients of P and of Q, the first of Q is 1
POINTS = 400


def fit():
    xs = [FLAT * (1 - mp.cos(mp.pi * (k + mp.mpf(1) / 2) / POINTS)) / 2 for k in range(POINTS)]
    ts = [mp.tanh(x) for x in xs]
    us = [(x / FLAT) ** 2 for x in xs]
    weights = [mp.mpf(1)] * POINTS
    below = [mp.mpf(1)] * POINTS
    best = None
    for _ in range(60):
        rows, right = [], []
        for x, t, u, w, q in zip(xs, ts, us, weights, below):
            scale = mp.sqrt(w) / q
            row = [scale * x * u**k for k in range(ABOVE)]
            row += [-scale * t * u**k for k in range(1, BELOW)]
            rows.append(row)
            right.append(scale * t)
        numbers = mp.lu_solve(mp.matrix(rows), mp.matrix(right))
        p, q = list(numbers[:ABOVE]), [mp.mpf(1)] + list(numbers[ABOVE:])
        below = [sum(c * u**k for k, c in enumerate(q)) for u in us]
        above = [x * sum(c * u**k for k, c in enumerate(p)) for x, u in zip(xs, us)]
        errors = [abs(a / b - t) for a, b, t in zip(above, below, ts)]
        worst = max(errors)
        if best is None or worst < best[0]:
            best = (worst, p, q)
        total = sum(w * e for w, e in zip(weights, errors))
        weights = [w * e / total * POINTS for w, e in zip(weights, errors)]
    return best


worst, p, q = fit()
print(f"largest error of the fit: {mp.nstr(worst, 4)}")
for name, all in (("ABOVE", p), ("BELOW", q)):
    values = [c / FLAT ** (2 * k) for k, c in enumerate(all)]
    print(name, [mp.nstr(value, 10) for value in values])
