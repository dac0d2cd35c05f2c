"""Coefficients of a linear combination of the last kept values, the newest first."""

from __future__ import annotations


def linear(slope: float) -> tuple[float, ...]:
    """The coefficients of F1 + slope * (F1 - F2); of a slope of 0, which holds F1, none."""
    return (1.0 + slope, -slope) if slope else ()


def slope_of(coefficients: tuple[float, ...]) -> float | None:
    """The slope whose `linear` these coefficients are; None where they are another rule's."""
    if len(coefficients) != 2 or coefficients[0] != 1.0 - coefficients[1]:
        return None
    return -coefficients[1]
