"""Small systems of linear equations in plain numbers, as fits over a few values need them."""

from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def solve(matrix: Matrix, right: Sequence[float]) -> list[float]:
    """x of matrix x = right, by elimination with pivots. ZeroDivisionError where there is none."""
    rows = [[*map(float, row), float(value)] for row, value in zip(matrix, right, strict=True)]
    n = len(rows)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, n):
            share = rows[i][k] / rows[k][k]
            for j in range(k, n + 1):
                rows[i][j] -= share * rows[k][j]
    x = [0.0] * n
    for k in reversed(range(n)):
        known = sum(rows[k][j] * x[j] for j in range(k + 1, n))
        x[k] = (rows[k][n] - known) / rows[k][k]
    return x
