"""Who a model scores: its population's condition, the same for training and for answers."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import Matrix

Mask = npt.NDArray[np.bool_]

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class PopulationError(ValueError):
    """A condition that is not understood. The message shows it."""


class Population:
    """A condition over features: names, numbers, comparisons, `and`, `or`, `not`.

    Missing counts as false: a comparison with a missing value does not hold, nor does a missing
    boolean.

    Args:
        condition: Such as `(is_open and inbound_count_30d > 0) or active_policy_count > 0`; an
            empty one holds for everybody.

    Raises:
        PopulationError: the condition holds anything else.
    """

    def __init__(self, condition: str) -> None:
        self.condition = condition
        try:
            self._tree = ast.parse(condition or "True", mode="eval").body
        except SyntaxError as error:
            raise PopulationError(f"the population {condition!r} is no condition") from error
        self.features: tuple[str, ...] = tuple(
            dict.fromkeys(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name))
        )
        self.holds(np.zeros((0, len(self.features))), {f: i for i, f in enumerate(self.features)})

    def holds(self, values: Matrix, positions: Mapping[str, int]) -> Mask:
        """Which rows belong to the population, bool[n].

        Args:
            values: float64[n, k], NaN where missing.
            positions: Column of each feature.

        Raises:
            KeyError: there is no column for a feature of the condition.
        """
        return self._truth(self._tree, values, positions)

    def _truth(self, node: ast.expr, values: Matrix, positions: Mapping[str, int]) -> Mask:
        match node:
            case ast.BoolOp():
                masks = [self._truth(part, values, positions) for part in node.values]
                combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
                return np.asarray(combine.reduce(masks), bool)
            case ast.UnaryOp(op=ast.Not()):
                return ~self._truth(node.operand, values, positions)
            case ast.Compare():
                return self._comparison(node, values, positions)
            case ast.Name():
                column = values[:, positions[node.id]]
                return ~np.isnan(column) & (column != 0)
            case ast.Constant(value=bool() as fixed):
                return np.full(len(values), fixed)
        raise self._not_understood(node)

    def _comparison(self, node: ast.Compare, values: Matrix, positions: Mapping[str, int]) -> Mask:
        sides = [self._number(side, values, positions) for side in (node.left, *node.comparators)]
        result = np.ones(len(values), bool)
        for sign, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if type(sign) not in _COMPARE:
                raise self._not_understood(node)
            known = ~(np.isnan(left) | np.isnan(right))
            result &= known & _COMPARE[type(sign)](left, right)
        return result

    def _number(self, node: ast.expr, values: Matrix, positions: Mapping[str, int]) -> Any:
        match node:
            case ast.Name():
                return values[:, positions[node.id]]
            case ast.Constant(value=int() | float() as number):
                return np.float64(number)
            case ast.UnaryOp(op=ast.USub()):
                return -self._number(node.operand, values, positions)
        raise self._not_understood(node)

    def _not_understood(self, node: ast.expr) -> PopulationError:
        return PopulationError(
            f"the population {self.condition!r} holds {ast.unparse(node)!r}; use feature names, "
            "numbers, comparisons, and, or, not"
        )
