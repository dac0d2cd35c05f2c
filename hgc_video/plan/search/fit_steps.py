"""Coefficients for the steps of a coded schedule, in closed form from what a calibration measured."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from ...errors import PlanError
from ..calibration import Calibration
from ..coefficients import Coefficients
from ..least_squares import Matrix
from ..linear_fit import Fit, fitted
from ..policies.searched import CodedSchedule
from ..step_codes import SKIP, depth, is_key

_WORTH = 0.97  # of the error with one value less: more is kept only for less than that


@dataclass(frozen=True)
class StepFitter:
    """Fits the coefficients of up to `terms` kept values, with a ridge towards a step's slope.

    Of whole predictions they are fitted to the products of predictions. Of the tensors inside, to the errors
    that holding each of the kept values would make: of coefficients that add up to 1 the error is nearly the
    same combination of those, and no tensor need be kept for it.
    """

    measured: Calibration
    terms: int = 3
    ridge: float = 0.001

    def __post_init__(self) -> None:
        if not self.measured.products:
            raise PlanError(
                "the calibration holds no products to fit coefficients to; make one with hgc-video calibrate"
            )

    def covers(self, action: str) -> bool:
        """Whether what steps of this code reuse was measured."""
        return not is_key(action) and (
            action == SKIP or depth(action) in self.measured.held_products
        )

    def of(self, action: str, past: Collection[int], step: int, slope: float) -> Fit:
        """The fit over the last of `past` (oldest first) at a step, of as few values as are worth it."""
        nodes = tuple(past)[-self.terms :]
        key = action, nodes, step, round(slope, 3)
        if key not in self._known:
            self._known[key] = self._fit(*key)
        return self._known[key]

    def _fit(self, action: str, nodes: tuple[int, ...], step: int, slope: float) -> Fit:
        whole = action == SKIP
        products = self.measured.products if whole else self._held(depth(action), step)
        best: Fit | None = None
        for terms in range(min(2, len(nodes)), len(nodes) + 1):
            found = fitted(
                products, nodes, step, terms=terms, ridge=self.ridge, slope=slope, free_sum=whole
            )
            if best is None or found.error < _WORTH * best.error:
                best = found
        assert best is not None
        return Fit(tuple(round(value, 5) for value in best.coefficients), best.error)

    def _held(self, level: int, step: int) -> Matrix:
        """The products of errors as a matrix over steps; the step's own value would make none."""
        at = level, step
        if at not in self._matrices:
            rows = self.measured.held_products[level][step]
            whole = [[rows[max(i, j)][min(i, j)] for j in range(step)] + [0.0] for i in range(step)]
            self._matrices[at] = [*whole, [0.0] * (step + 1)]
        return self._matrices[at]

    def __call__(self, plan: CodedSchedule, before: CodedSchedule | None = None) -> CodedSchedule:
        """The plan with coefficients for every step that reuses what was measured.

        Of a plan that was `before` another, only the steps whose kept values are others now are fitted anew;
        its steps by slope stay so, and it as a whole, where it has no coefficients.
        """
        if before is not None and not before.coefficients:
            return replace(plan, coefficients=())
        made = [self._coefficients(plan, before, i) for i in range(len(plan.actions))]
        return replace(plan, coefficients=tuple(made))

    def fitted_at(self, plan: CodedSchedule, steps: Collection[int]) -> CodedSchedule:
        """The plan with coefficients at those steps as well."""
        own = plan.coefficients or ((),) * len(plan.actions)
        made = [self._coefficients(plan, None, i) if i in steps else c for i, c in enumerate(own)]
        return replace(plan, coefficients=tuple(made))

    def _coefficients(
        self, plan: CodedSchedule, before: CodedSchedule | None, index: int
    ) -> Coefficients:
        action, past = plan.actions[index], plan.history(index)
        if not self.covers(action):
            return ()
        if (
            before is not None
            and before.actions[index] == action
            and (
                not before.coefficients[index]
                or before.history(index)[-self.terms :] == past[-self.terms :]
            )
        ):
            return plan.coefficients[index]
        return self.of(action, past, index, plan.extrapolation[index]).coefficients

    @cached_property
    def _known(self) -> dict[tuple[str, tuple[int, ...], int, float], Fit]:
        return {}

    @cached_property
    def _matrices(self) -> dict[tuple[int, int], Matrix]:
        return {}
