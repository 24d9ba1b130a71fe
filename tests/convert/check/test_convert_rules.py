from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from d2c_mlops.convert.api_changes.change import ApiChange, applicable_changes, discover_api_changes, installed_version
from d2c_mlops.convert.check.apply_fixes import apply_fixes
from d2c_mlops.convert.check.check import apply_all_rules
from d2c_mlops.convert.check.rule import Rule, Subject, make_rule_example, rules
from d2c_mlops.convert.check.rules.library_changes import affected_places
from d2c_mlops.convert.check.secret_scan import find_personal_data, find_secrets, has_valid_luhn_digit, mask_secret
from d2c_mlops.convert.source.environment import distribution_of
from d2c_mlops.convert.source.notebook import Notebook, code_cell


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.id)
def test_a_rule_finds_its_bad_example_and_leaves_its_good_one(rule: Rule, tmp_path: Path) -> None:
    assert list(rule.check(rule.bad.subject(tmp_path))), f"{rule.id} misses its own example"
    assert not list(rule.check(rule.good.subject(tmp_path))), f"{rule.id} is wrong about its good example"


def test_rules_have_unique_names_and_say_why_and_how() -> None:
    assert len({rule.name for rule in rules()}) == len(rules()) >= 40
    for rule in rules():
        assert rule.why and rule.fix and not rule.why.endswith(".") and rule.severity in ("error", "warning", "info")


def _title(change: ApiChange) -> str:
    return f"{change.path}-{change.kind}-{change.argument}"


@pytest.mark.parametrize("change", applicable_changes(), ids=_title)
def test_a_change_is_found_in_its_example_and_gone_after_its_edit(change: ApiChange) -> None:
    subject = Subject(make_rule_example(change.example).notebook())
    hits = [hit for hit, found in affected_places(subject) if found is change]
    assert hits
    if hits[0].edits:
        findings = [one for one in apply_all_rules(subject) if one.edits]
        sources, applied = apply_fixes(subject.notebook.cells, findings)
        assert applied, "the edit could not be applied"
        after = Subject(Notebook(Path("x.ipynb"), (code_cell(0, sources[0]),), "python", "", 4))
        assert change not in [found for _, found in affected_places(after)]


def test_pandas_names_are_known_on_objects_of_which_nothing_else_is() -> None:
    source = "t = make()\nt = t.append({'a': 1}, ignore_index=True)\nfor k, v in t.iteritems():\n    t.ix[k]\nt.groupby('a')['b', 'c'].sum()"
    found = {
        (one.rule, one.line)
        for one in apply_all_rules(Subject(make_rule_example(source).notebook()))
        if one.severity == "error"
    }
    assert {("D2C501", 2), ("D2C501", 3), ("D2C501", 4), ("D2C514", 5)} <= found
    quiet = "rows = make()\nrows.append(1)\nclass A:\n    def items(self):\n        return rows.append"
    assert "D2C501" not in {one.rule for one in apply_all_rules(Subject(make_rule_example(quiet).notebook()))}


def _lookup(path: str) -> bool:
    """Whether a dotted path exists in the installed library."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing: ModuleType | object = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            try:
                thing = getattr(thing, part)
            except (AttributeError, ImportError):
                return False
        return True
    return False


# still importable as placeholders that raise when used, or attributes of fitted objects and of dates only
_TOLD = (
    "statsmodels.tsa.ar_model.AR",
    "statsmodels.tsa.arima_model",
    "scipy.interpolate.interp2d",
    "pandas.Series.dt",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [
        one
        for one in discover_api_changes()
        if one.kind == "gone"
        and installed_version(one.library)
        and one in applicable_changes()
        and not one.path.startswith(_TOLD)
    ],
    ids=_title,
)
def test_what_is_said_to_be_gone_is_gone_from_the_installed_version(change: ApiChange) -> None:
    assert not _lookup(change.path)
    if change.to and not change.to.endswith("_") and installed_version(distribution_of(change.to.split(".")[0])):
        assert _lookup(change.to), f"{change.to} does not exist"


@pytest.mark.parametrize(
    "line",
    [
        "password = 'Herbst-2021!'",
        "os.environ['AWS_SECRET_ACCESS_KEY'] = 'wJalrXUtnFEMIK7MDENGbPxRfiCY'",
        "url = 'mysql://root:geheim99@10.0.0.5/shop'",
        "key = 'AIzaSyA1234567890abcdefghijklmnopqrstuv'",
        "t = 'ghp_abcdefghijklmnopqrstuvwxyz0123456789'",
        "headers = {'Authorization': 'Bearer abcdefghijklmnopqrstuvwx'}",
        "token = 'shpat_0123456789abcdef0123456789abcdef'",
        "jwt = 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U'",
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_secrets_are_found_and_never_shown(line: str) -> None:
    found = list(find_secrets(line))
    assert found
    for one in found:
        assert one.masked.endswith("********") and len(one.masked) <= 11


@pytest.mark.parametrize(
    "line",
    [
        "password = 'your-password'",
        "password = getpass()",
        "api_key = os.environ['API_KEY']",
        "key = 'customer_id'",
        "df.sort_values(key='amount')",
        "url = 'https://shop.example/orders?page=2'",
        "sheet = 'https://docs.google.com/spreadsheets/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms'",
        "token_pattern = r'[a-z]+'",
        "monkey = 'bananas and more bananas'",
        "primary_key = 'order_line_number'",
        "url = 'postgresql://{user}:{password}@{host}/db'",
    ],
)
def test_what_only_looks_like_a_secret_is_left_alone(line: str) -> None:
    assert list(find_secrets(line)) == []


def test_people_are_found_by_mail_phone_and_card() -> None:
    text = "jana.weiss@mailhaus.de, +49 30 901820, 4111 1111 1111 1111"
    assert [one.what for one in find_personal_data(text)] == [
        "e-mail address",
        "telephone number",
        "payment card number",
    ]
    assert all("jana" not in one.masked and "4111" not in one.masked for one in find_personal_data(text))


@pytest.mark.parametrize(
    "text",
    [
        "0.4111111111111111  12.3456789012345678",
        "2019-05-01 10:22:33  1234567890123456",
        "order 100-200-300 of 2020",
        "info@shop.de noreply@shop.de someone@example.com",
        "\n".join(str(4000000000000000 + 7 * i) for i in range(40)),
        "git@github.com:shop/repo.git @decorator a@b",
    ],
)
def test_numbers_and_role_addresses_are_no_people(text: str) -> None:
    assert list(find_personal_data(text)) == []


def test_the_check_digit_of_a_card_counts() -> None:
    assert (
        has_valid_luhn_digit("4111111111111111")
        and not has_valid_luhn_digit("4111111111111112")
        and not has_valid_luhn_digit("0000000000000000")
    )
    assert mask_secret("abc") == "********" and mask_secret("a" * 20).startswith("aaa*")


@pytest.mark.parametrize(
    ("cell", "found"),
    [("if rows:\n    quit", "D2C110"), ("import sys\nsys.exit", "D2C110"), ("exit", ""), ("exit()", ""), ("x = exit", ""),
     ("%%bash\ncp a b\necho done", "D2C111"), ("%%sh\n# comment\ncp a b", ""), ("%%bash\nset -euo pipefail\ncp a b\nls", ""),
     ("%%bash\ncp a \\\n  b", ""), ("!cp a b; ls", "D2C111"), ("!echo 'a; b'", ""), ("x = !ls; pwd", "D2C111"), ("!cp a b;", "")],
)  # fmt: skip
def test_what_ends_nothing_and_what_hides_a_failure_is_found(cell: str, found: str) -> None:
    hits = {
        one.rule
        for one in apply_all_rules(
            Subject(make_rule_example(f"rows = 1\n{cell}" if "rows" in cell else cell).notebook())
        )
    }
    assert hits & {"D2C110", "D2C111"} == ({found} if found else set())
