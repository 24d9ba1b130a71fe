"""Values and rules as text for deciders: values rounded by the contract's units, rules as sentences."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from math import isfinite
from typing import Any

from d2c_mlops.decisions.rules import EXACT, DecisionRule
from d2c_mlops.models.core.contract import Contract, Field

CURRENCY = re.compile(r"([A-Z]{3}|[€$£])(?![A-Za-z])(.*)")
ISO = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP CRC CUP "
    "CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD "
    "JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN "
    "NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL "
    "THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG € $ £"
)
CODES = frozenset(ISO.split())  # ISO 4217: other words of three capitals, such as SKU, are no money
CURRENCIES = ("euro", "euros", "dollar", "dollars", "pound", "pounds")
WHOLE = {
    "JPY": 0,
    "KRW": 0,
    "HUF": 0,
    "CLP": 0,
    "ISK": 0,
    "KWD": 3,
    "BHD": 3,
    "TND": 3,
}  # digits where they are not 2 (ISO 4217)
SHARES = ("share", "fraction", "probability", "chance")
PERCENTS = ("%", "percent", "per cent", "pct")
TIMES = ("seconds", "minutes", "hours", "days", "weeks", "months", "years")
COUNTS = ("units", "pieces", "items", "orders", "customers", "visits", "visitors", "lines", "parcels", "leads", "people", "sessions",
          "clicks", "products", "purchases", "packs", "boxes", "pallets", "count")  # fmt: skip
ARTICLES = ("the ", "a ", "an ")
CLAUSES = ("what", "how", "when", "whether", "which", "who", "where")
REMEMBERED = 256  # sentences
LABEL_WORDS = 6  # a description of more is no label
ORDER = {
    ast.Lt: "is below",
    ast.LtE: "is at most",
    ast.Gt: "is above",
    ast.GtE: "is at least",
    ast.Eq: "is",
    ast.NotEq: "is not",
}
AMOUNT = {
    ast.Lt: "less than",
    ast.LtE: "at most",
    ast.Gt: "more than",
    ast.GtE: "at least",
    ast.Eq: "exactly",
    ast.NotEq: "not exactly",
}
OPPOSITE = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
MIRRORED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}
SUMS = {ast.Add: "plus", ast.Sub: "minus", ast.Mult: "times", ast.Div: "divided by"}


# --- values


def display_value(value: Any, field: Field | None = None, exact: bool = False) -> str:
    """Return a value as people write it: money with its currency, counts whole, shares as per cent.

    `exact` keeps every digit of a number: for limits, which are not rounded.
    """
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float | Decimal):
        return _number_text(value, field, exact)
    if field is not None and field.kind == "date-time":
        return _time_text(str(value))
    return str(value)


def input_text(value: Any, field: Field | None = None) -> str:
    """Return a value as text for an input field: rounded, without unit and separators."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return "" if value is None else display_value(value) if isinstance(value, bool) else str(value)
    digits = _decimal_digits(field)
    if field is not None and _unit_text(field).startswith(SHARES):
        digits = max(3, _significant_digits(Decimal(repr(value))))
    return _round_value(Decimal(repr(value)), 6 if digits is None else digits, False, plain=True)


def unit_suffix(field: Field) -> str:
    """Return the unit behind a label; empty where the values say it, or there is none."""
    return f" ({field.unit})" if field.unit else ""


def _unit_text(field: Field | None) -> str:
    return (field.unit or "").strip().lower() if field is not None else ""


def _decimal_digits(field: Field | None) -> int | None:
    """Return the digits behind the point of a field's values; None where its unit does not say."""
    unit = _unit_text(field)
    if (
        field is not None
        and field.unit
        and (currency := CURRENCY.fullmatch(field.unit.strip()))
        and currency[1] in CODES
    ):
        return WHOLE.get(currency[1], 2)
    if unit.startswith("money") or unit in CURRENCIES or (unit.upper() in CODES and unit.upper() not in WHOLE):
        return 2
    if unit in COUNTS or (field is not None and field.kind == "integer"):
        return 0
    return 1 if unit in TIMES or unit in PERCENTS else None


def _number_text(value: float | Decimal, field: Field | None, exact: bool) -> str:
    number, unit = Decimal(repr(value) if isinstance(value, float) else value), _unit_text(field)
    if not number.is_finite():
        return str(value)
    if unit.startswith(SHARES) or "0..1" in unit:
        return _percentage_text(number * 100, exact)
    if unit in PERCENTS:
        return _percentage_text(number, exact)
    if field is not None and (field.name == "id" or field.name.endswith("_id")) and not unit:
        return f"{number:f}"
    digits = _decimal_digits(field)
    if unit in TIMES and 0 < number < Decimal("0.05") and not exact:
        return f"less than 0.1 {unit}"
    if unit in COUNTS and 0 < number < Decimal("0.5") and not exact:
        return f"less than 1 {_singular_unit(unit)}".replace(" count", "")
    text = _round_value(
        number, _significant_digits(number) if digits is None else digits, exact, strip=digits is None or unit in TIMES
    )
    if unit in ("", "count") or unit.startswith("money"):
        return text
    assert field is not None and field.unit is not None
    return f"{text} {_singular_unit(field.unit) if text == '1' and unit in (*COUNTS, *TIMES) else field.unit.strip()}"


def _percentage_text(number: Decimal, exact: bool) -> str:
    if 0 < number < Decimal("0.05") and not exact:
        return "less than 0.1 %"
    return f"{_round_value(number, 1, exact, strip=True)} %"


def _significant_digits(number: Decimal) -> int:
    """Return the decimal places that keep three significant digits, at least two."""
    return max(2, 2 - number.adjusted()) if number else 0


def _round_value(number: Decimal, digits: int, exact: bool, *, strip: bool = False, plain: bool = False) -> str:
    exponent = number.normalize(EXACT).as_tuple().exponent
    own_digits = max(0, -exponent) if isinstance(exponent, int) else 0
    places = max(digits, own_digits) if exact else digits
    with localcontext(EXACT) as context:
        context.prec = 400
        rounded = number.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP) + 0
    text = f"{rounded:f}" if plain else f"{rounded:,f}"
    return text.rstrip("0").rstrip(".") if (strip or plain) and "." in text and not (plain and digits == 2) else text


def _singular_unit(unit: str) -> str:
    special = {"boxes": "box", "people": "person"}
    return special.get(unit.strip(), unit.strip().removesuffix("s"))


def _time_text(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment.tzinfo else text


# --- names


@dataclass(frozen=True)
class Wording:
    """Labels and texts of a contract's fields."""

    inputs: Mapping[str, Field]
    outputs: Mapping[str, Field]
    memory: dict[int, tuple[ast.expr, str]] = field(
        default_factory=dict, repr=False, compare=False
    )  # sentences by their node's id

    @classmethod
    def of(cls, contract: Contract | None) -> Wording:
        """Return the texts of a contract; without one, fields are shown by name."""
        if contract is None:
            return cls({}, {})
        return cls(
            {field_.name: field_ for field_ in contract.input_fields},
            {field_.name: field_ for field_ in contract.output_fields},
        )

    def field(self, name: str, side: str = "") -> Field | None:
        """Return a field; a name of both an input and an output means the output."""
        if side:
            return (self.inputs if side == "inputs" else self.outputs).get(name)
        return self.outputs.get(name) or self.inputs.get(name)

    def label(self, name: str, side: str = "") -> str:
        """Return a field's label: its description where that is short and unique, else its name."""
        field_ = self.field(name, side)
        plain = name.replace("_", " ").strip()
        if field_ is None:
            return plain
        text = field_.description.strip().rstrip(".")
        if not text or len(text.split()) > LABEL_WORDS or re.search(r"[;:,(\n]", text):
            return plain
        descriptions = Counter(
            described.description.strip().rstrip(".") for described in {**self.inputs, **self.outputs}.values()
        )
        if descriptions[text] > 1:
            return plain
        for article in ARTICLES:
            text = text[len(article) :] if text.lower().startswith(article) else text
        return text if text[:2].isupper() else f"{text[:1].lower()}{text[1:]}"

    def capitalized_label(self, name: str, side: str = "") -> str:
        """Return a field's label with a capital letter, for the head of a row."""
        text = self.label(name, side)
        return f"{text[:1].upper()}{text[1:]}"

    def sentence(self, rule: DecisionRule, node: ast.expr | None = None) -> str:
        """Return a rule, or a part of it, as a sentence without a full stop."""
        part = rule.tree if node is None else node
        node_, text = self.memory.get(id(part), (None, ""))
        if node_ is not part:  # the id of a node that is gone is given to another one
            if len(self.memory) >= REMEMBERED:
                self.memory.clear()
            text = _condition_text(part, self, False)
            self.memory[id(part)] = part, text
        return text


FIELD_NAMES = Wording({}, {})  # where no contract is known


# --- rules


def _condition_text(node: ast.expr, wording: Wording, negated: bool) -> str:
    match node:
        case ast.BoolOp(op=op, values=values):
            both = isinstance(op, ast.And) is not negated
            parts = [_operand_text(operand_, wording, negated, both) for operand_ in values]
            comma = "," * any(part.startswith("either ") for part in parts[:-1])  # ends what either joins
            return f"{comma} and ".join(parts) if both else " or ".join(parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _condition_text(operand, wording, not negated)
        case ast.Compare(left=left, ops=ops, comparators=others):
            pairs = list(zip([left, *others], ops, others, strict=False))
            parts = [_comparison_text(first, type(op), second, wording, negated) for first, op, second in pairs]
            return (" or " if negated else " and ").join(parts)
        case ast.Constant(value=bool() as value):
            return "always" if value is not negated else "never"
    return f"{_noun_phrase(node, wording).removeprefix('the ')} is {'no' if negated else 'yes'}"


def _operand_text(node: ast.expr, wording: Wording, negated: bool, is_and: bool) -> str:
    """Return one side of an `and` or `or`; a nested operator of the other kind gets 'either'."""
    text = _condition_text(node, wording, negated)
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    is_nested = isinstance(inner, ast.BoolOp) and " or " in text
    return f"either {text}" if is_nested and is_and else text


def _comparison_text(first: ast.expr, op: type[ast.cmpop], second: ast.expr, wording: Wording, negated: bool) -> str:
    op = OPPOSITE[op] if negated else op
    if isinstance(second, ast.List | ast.Tuple):
        field = _field_with_unit(first, wording)
        listed = [
            display_value(element.value, field, exact=True)
            for element in second.elts
            if isinstance(element, ast.Constant)
        ]
        last = "or" if op is ast.In else "and"
        text = f"{', '.join(listed[:-1])} {last} {listed[-1]}" if len(listed) > 1 else "".join(listed)
        verb = "is" if op is ast.In else "is none of" if len(listed) > 1 else "is not"
        return f"{_noun_phrase(first, wording)} {verb} {text}"
    if _is_number(first) and not _is_number(second):
        first, op, second = second, MIRRORED[op], first
    if isinstance(second, ast.Constant) and second.value is None:
        return f"{_noun_phrase(first, wording)} is {'not ' * (op is ast.Eq)}known"
    if isinstance(second, ast.Constant) and isinstance(second.value, bool):
        if _is_condition(first):
            return _condition_text(first, wording, second.value is not (op is ast.Eq))
        return f"{_noun_phrase(first, wording)} is {'yes' if second.value is (op is ast.Eq) else 'no'}"
    return _difference_text(first, op, second, wording) or _ordering_text(first, op, second, wording)


def _difference_text(first: ast.expr, op: type[ast.cmpop], second: ast.expr, wording: Wording) -> str:
    """Return a comparison of the difference of two values as text; empty for other comparisons."""
    if not _is_number(second):
        return ""
    whole, base = (
        (first.left, first.right) if isinstance(first, ast.BinOp) and isinstance(first.op, ast.Div) else (first, None)
    )
    match whole:
        case ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(left=a, op=ast.Sub(), right=b)]):
            verb, end = "differs from", ""
        case ast.BinOp(left=a, op=ast.Sub(), right=b) if base is not None:
            verb, end = "", "above"
        case _:
            return ""
    if base is not None and ast.dump(base) != ast.dump(b):
        return ""
    if not verb and (_constant_value(second) or 0) < 0 and op not in (ast.Eq, ast.NotEq):
        op, end, second = MIRRORED[op], "below", ast.Constant(-_constant_value(second))
    far = _percent_text(second) if base is not None else _constant_text(second, _field_with_unit(a, wording))
    if verb:
        return f"{_noun_phrase(a, wording)} {verb} {_noun_phrase(b, wording)} by {AMOUNT[op]} {far}"
    return f"{_noun_phrase(a, wording)} is {AMOUNT[op]} {far} {end} {_noun_phrase(b, wording)}"


def _ordering_text(first: ast.expr, op: type[ast.cmpop], second: ast.expr, wording: Wording) -> str:
    field = _field_with_unit(first, wording) or _field_with_unit(second, wording)
    right = _constant_text(second, field) if _is_constant(second) else _noun_phrase(second, wording, field)
    lasting = re.fullmatch(r"(\w+?)_days", first.id) if isinstance(first, ast.Name) else None
    if lasting and op in AMOUNT and op not in (ast.Eq, ast.NotEq):
        return f"{lasting[1].replace('_', ' ')} lasts {AMOUNT[op]} {right}"
    verb = f"is {AMOUNT[op]}" if _unit_text(field) in TIMES and op not in (ast.Eq, ast.NotEq) else ORDER[op]
    return f"{_noun_phrase(first, wording, field)} {verb} {right}"


def _noun_phrase(node: ast.expr, wording: Wording, field: Field | None = None) -> str:
    """Return an operand of a rule as a noun; `field` gives the unit of a constant."""
    match node:
        case ast.Constant():
            return _constant_text(node, field)
        case ast.Name(id=name):
            return _with_article(wording.label(name))
        case ast.Attribute(value=ast.Name(id=side), attr=name):
            return _with_article(wording.label(name, side))
        case ast.UnaryOp(op=op, operand=operand):
            return f"{'minus ' * isinstance(op, ast.USub)}{_grouped_noun(operand, wording, field)}"
        case ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(left=a, op=ast.Sub(), right=b)]):
            return f"the difference between {_noun_phrase(a, wording, field)} and {_noun_phrase(b, wording, field)}"
        case ast.Call(func=ast.Name(id=name), args=args):
            parts = [_noun_phrase(argument, wording, field) for argument in args]
            if name == "abs":
                return f"the size of {parts[0]}"
            return f"the {'smallest' if name == 'min' else 'largest'} of {', '.join(parts[:-1])} and {parts[-1]}"
        case ast.BinOp(left=left, op=ast.Mult(), right=right) if _is_number(right):
            return f"{_constant_without_unit(right)} times {_grouped_noun(left, wording, field)}"
        case ast.BinOp(left=left, op=op, right=right):
            inner = None if isinstance(op, ast.Mult | ast.Div) else field
            first = (
                _grouped_noun(left, wording, inner)
                if isinstance(op, ast.Mult | ast.Div)
                else _noun_phrase(left, wording, inner)
            )
            return f"{first} {SUMS[type(op)]} {_grouped_noun(right, wording, inner)}"
    return f"whether {_condition_text(node, wording, False)}"


def _is_condition(node: ast.expr) -> bool:
    """Return whether a part of a rule holds or does not, rather than having a value."""
    return isinstance(node, ast.BoolOp | ast.Compare) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def _grouped_noun(node: ast.expr, wording: Wording, field: Field | None) -> str:
    """Return an operand as a noun that is unambiguous beside another operator, as in brackets."""
    match node:
        case ast.BinOp(left=left, op=ast.Mult(), right=right) if _is_number(right):
            return _noun_phrase(node, wording, field)
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult() as op, right=right):
            inner = field if isinstance(op, ast.Add) else None
            name = "sum" if isinstance(op, ast.Add) else "product"
            return f"the {name} of {_grouped_noun(left, wording, inner)} and {_grouped_noun(right, wording, inner)}"
        case ast.BinOp():
            return f"the result of {_noun_phrase(node, wording, field)}"
    return _noun_phrase(node, wording, field)


def _field_with_unit(node: ast.expr, wording: Wording) -> Field | None:
    """Return the field whose unit an expression has; None where it has another unit or none."""
    match node:
        case ast.Name(id=name):
            return wording.field(name)
        case ast.Attribute(value=ast.Name(id=side), attr=name):
            return wording.field(name, side)
        case ast.UnaryOp(operand=operand):
            return _field_with_unit(operand, wording)
        case ast.Call(args=args):
            return next(
                (argument_field for argument in args if (argument_field := _field_with_unit(argument, wording))), None
            )
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return _field_with_unit(left, wording) or _field_with_unit(right, wording)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div(), right=right) if _is_number(right):
            return _field_with_unit(left, wording)
        case ast.BinOp(left=left, op=ast.Mult(), right=right) if _is_number(left):
            return _field_with_unit(right, wording)
    return None


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant))


def _is_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    return (
        isinstance(inner, ast.Constant) and isinstance(inner.value, int | float) and not isinstance(inner.value, bool)
    )


def _constant_value(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return -node.operand.value if isinstance(node.op, ast.USub) else node.operand.value  # type: ignore[operator]
    return node.value if isinstance(node, ast.Constant) else None


def _constant_text(node: ast.expr, field: Field | None) -> str:
    return display_value(_constant_value(node), field, exact=True)


def _constant_without_unit(node: ast.expr) -> str:
    return display_value(_constant_value(node), None, exact=True)


def _percent_text(node: ast.expr) -> str:
    return f"{_round_value(Decimal(repr(_constant_value(node))) * 100, 0, True)} %"


def _with_article(label: str) -> str:
    return label if label.partition(" ")[0] in CLAUSES else f"the {label}"
