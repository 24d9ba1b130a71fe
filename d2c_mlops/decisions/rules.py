"""Rules over a prediction's inputs and outputs: comparisons, arithmetic, and, or, not; nothing that could run code.

A rule is parsed into a syntax tree of known nodes and evaluated on it: Python's own `eval` is never called. Numbers are exact
decimals, so that a price that goes up by 5 % is within `<= 0.05`. What cannot be evaluated (a value is missing, a text where a number
is needed, a division by zero) is NotEvaluable: neither true nor false, also behind `not`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext
from typing import Any

from ..errors import Failure, UsageError

LONGEST = 1000  # characters of a rule
DEEPEST = 40  # nodes within nodes
DIGITS = 34  # of a number: what decimals are exact to here
EXACT = Context(prec=DIGITS, Emin=-6000, Emax=6000, traps=[InvalidOperation, DivisionByZero, Overflow])
SIDES = ("inputs", "outputs")
FUNCTIONS: dict[str, tuple[Callable[..., Decimal], int, int]] = {  # with the fewest and the most arguments
    "abs": (abs, 1, 1),
    "min": (min, 2, 9),
    "max": (max, 2, 9),
}
ARITHMETIC: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
WHAT = "a rule has names of inputs and outputs, numbers, texts, + - * /, comparisons, in, and, or, not, abs, min, max"


class NotEvaluable(Exception):
    """A rule cannot be evaluated: neither true nor false."""


@dataclass(frozen=True)
class DecisionRule:
    """A parsed rule."""

    text: str
    tree: ast.expr
    names: frozenset[tuple[str, str]]  # (side, name); side is empty where the text does not say it

    @classmethod
    def of(cls, text: str, where: str = "rule") -> DecisionRule:
        """Parse a rule. Raises UsageError with everything that is not allowed in it."""
        if len(text) > LONGEST:
            raise UsageError(f"a rule has at most {LONGEST} characters", where=where)
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as err:
            message = err.msg if isinstance(err, SyntaxError) else str(err)
            raise UsageError(f"this is not a valid rule: {message}", where=f"{where}: {text}", next=WHAT) from None
        failures: list[Failure] = []
        names: set[tuple[str, str]] = set()
        if _nesting_depth(tree) > DEEPEST:
            what = f"is nested more than {DEEPEST} deep: leave out brackets, or let a list stand for many comparisons"
            raise UsageError(
                "this is not a valid rule", where=where, failures=[Failure(what, f"{text[:60]}…")], next=WHAT
            )
        _collect_failures(tree, failures, names)
        if not failures and not _is_condition(tree):
            failures.append(Failure("is a value, not a condition", text))
        if failures:
            raise UsageError("this is not a valid rule", where=f"{where}: {text}", failures=failures, next=WHAT)
        return cls(text, tree, frozenset(names))

    def check(self, inputs: Collection[str], outputs: Collection[str], where: str) -> None:
        """Raise UsageError for names that the contract does not have; a name of both an input and an output means the output."""
        failures = []
        for side, name in sorted(self.names):
            places = {"inputs": name in inputs, "outputs": name in outputs}
            if side and not places[side]:
                failures.append(
                    Failure(
                        f"is not one of the {side}: {', '.join(sorted(_names_of_side(side, inputs, outputs)))}", name
                    )
                )
            elif not side and not any(places.values()):
                names = ", ".join(sorted({*inputs, *outputs}))
                failures.append(Failure(f"is neither an input nor an output: {names}", name))
        if failures:
            raise UsageError("the rule uses unknown names", where=f"{where}: {self.text}", failures=failures)

    def holds(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
        """Return whether the rule holds for a prediction. Raises NotEvaluable if it cannot be evaluated."""
        with localcontext(EXACT):
            try:
                result = _evaluate_node(self.tree, inputs, outputs)
            except (ArithmeticError, TypeError, ValueError):
                raise NotEvaluable("a number is divided by zero, or is too large to compute with") from None
        if not isinstance(result, bool):
            raise NotEvaluable(f"a value is {result}, which is not a boolean")
        return result

    def failed_parts(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> list[ast.expr]:
        """Return the parts, joined by `and`, that do not hold for a prediction or cannot be evaluated."""
        parts = (
            self.tree.values if isinstance(self.tree, ast.BoolOp) and isinstance(self.tree.op, ast.And) else [self.tree]
        )
        return [
            part for part in parts if not DecisionRule(self.text, part, self.names)._holds_for_certain(inputs, outputs)
        ]

    def _holds_for_certain(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
        try:
            return self.holds(inputs, outputs)
        except NotEvaluable:
            return False


def _names_of_side(side: str, inputs: Collection[str], outputs: Collection[str]) -> Collection[str]:
    return inputs if side == "inputs" else outputs


def _is_condition(node: ast.expr) -> bool:
    """Whether a node can be true or false; a name may be that of a yes-or-no field."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    return isinstance(node, ast.Compare | ast.BoolOp | ast.Name | ast.Attribute) or (
        isinstance(node, ast.Constant) and isinstance(node.value, bool)
    )


def _nesting_depth(tree: ast.AST) -> int:
    """Return how many expressions are nested in a tree, without a call for each: a long sum has hundreds."""
    deepest, waiting = 0, [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(child, depth + isinstance(child, ast.expr)) for child in ast.iter_child_nodes(node)]
    return deepest


def _collect_failures(node: ast.AST, failures: list[Failure], names: set[tuple[str, str]]) -> None:
    """Collect the names of a tree, and every node that is not allowed in a rule."""
    shown = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
    inner: list[ast.expr] = []
    match node:
        case ast.Constant(value=int() as value) if abs(value) >= 10**DIGITS:
            failures.append(Failure(f"has more than {DIGITS} digits, more than can be compared exactly", shown[:40]))
        case ast.Name(id=name):
            names.add(("", name))
        case ast.Attribute(value=ast.Name(id=side), attr=name) if side in SIDES:
            names.add((side, name))
        case ast.Constant(value=value) if _is_constant(value):
            pass
        case ast.BoolOp(values=values):
            inner = values
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            inner = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            inner = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=others) if _are_allowed(ops, others):
            listed = [item.elts if isinstance(item, ast.List | ast.Tuple) else [item] for item in others]
            inner = [left, *(item for some in listed for item in some)]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            _, fewest, most = FUNCTIONS[name]
            if not fewest <= len(args) <= most:
                failures.append(Failure(f"{name} takes {fewest} to {most} arguments", shown))
            inner = args
        case _:
            failures.append(Failure(f"{type(node).__name__} is not allowed", shown))
    for child in inner:
        _collect_failures(child, failures, names)


def _is_constant(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


def _are_allowed(ops: list[ast.cmpop], others: list[ast.expr]) -> bool:
    """Whether comparisons are known; `in` takes a list of constants, and nothing else does."""
    for op, comparator in zip(ops, others, strict=True):
        listed = isinstance(comparator, ast.List | ast.Tuple)
        if isinstance(op, ast.In | ast.NotIn) != listed or (not listed and type(op) not in ORDER):
            return False
        if isinstance(comparator, ast.List | ast.Tuple) and not all(
            isinstance(element, ast.Constant) and _is_constant(element.value) for element in comparator.elts
        ):
            return False
    return True


def _evaluate_node(node: ast.AST, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return _exact_value(value)
        case ast.Name(id=name):
            return _exact_value(outputs[name] if name in outputs else inputs.get(name))
        case ast.Attribute(value=ast.Name(id=side), attr=name):
            return _exact_value((inputs if side == "inputs" else outputs).get(name))
        case ast.BoolOp(op=op, values=values):
            decisive = isinstance(op, ast.Or)
            return (
                decisive
                if any(_evaluate_condition(operand_, inputs, outputs) is decisive for operand_ in values)
                else not decisive
            )
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _evaluate_condition(operand, inputs, outputs)
        case ast.UnaryOp(op=op, operand=operand):
            number = _evaluate_number(operand, inputs, outputs)
            return -number if isinstance(op, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right):
            return ARITHMETIC[type(op)](
                _evaluate_number(left, inputs, outputs), _evaluate_number(right, inputs, outputs)
            )
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name][0](*(_evaluate_number(argument, inputs, outputs) for argument in args))
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _comparison_holds(_evaluate_node(left, inputs, outputs), ops, others, inputs, outputs)
    raise NotEvaluable(f"{type(node).__name__} is not allowed")


def _comparison_holds(
    first: Any, ops: list[ast.cmpop], others: list[ast.expr], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> bool:
    for op, comparator in zip(ops, others, strict=True):
        if isinstance(comparator, ast.List | ast.Tuple):
            if first is None:
                raise NotEvaluable("a value is missing")
            is_member = any(
                _is_equal(first, _exact_value(element.value))
                for element in comparator.elts
                if isinstance(element, ast.Constant)
            )
            holds = is_member is isinstance(op, ast.In)
            second: Any = None
        else:
            second = _evaluate_node(comparator, inputs, outputs)
            holds = _order_holds(first, op, second, isinstance(comparator, ast.Constant) and comparator.value is None)
        if not holds:
            return False
        first = second
    return True


def _order_holds(first: Any, op: ast.cmpop, second: Any, asks_for_none: bool) -> bool:
    if asks_for_none and isinstance(op, ast.Eq | ast.NotEq):
        return (first is None) is isinstance(op, ast.Eq)
    if first is None or second is None:
        raise NotEvaluable("a value is missing")
    if type(first) is not type(second) or (isinstance(first, bool) and not isinstance(op, ast.Eq | ast.NotEq)):
        raise NotEvaluable(f"{first} and {second} cannot be compared")
    return ORDER[type(op)](first, second)


def _is_equal(first: Any, second: Any) -> bool:
    return type(first) is type(second) and bool(first == second)


def _exact_value(value: Any) -> Any:
    """Return numbers as exact decimals, texts and yes or no as they are."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotEvaluable("a number is not finite")
        return Decimal(repr(value))
    raise NotEvaluable(f"a {type(value).__name__} is not a value")


def _evaluate_number(node: ast.AST, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Decimal:
    value = _evaluate_node(node, inputs, outputs)
    if not isinstance(value, Decimal):
        raise NotEvaluable("a number is missing" if value is None else f"{value} is not a number")
    return value


def _evaluate_condition(node: ast.AST, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    value = _evaluate_node(node, inputs, outputs)
    if not isinstance(value, bool):
        raise NotEvaluable("a boolean value is missing" if value is None else f"{value} is not a boolean")
    return value
