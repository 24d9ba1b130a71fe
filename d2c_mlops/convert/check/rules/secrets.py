"""Rules about secrets in sources and outputs, and personal data in outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_rule_example, rule
from d2c_mlops.convert.check.secret_scan import find_personal_data, find_secrets
from d2c_mlops.convert.source.finding import Hit
from d2c_mlops.convert.source.notebook import Output

_TEXTS = ("text/plain", "text/html", "text/markdown", "application/json")
_TAGS = re.compile(r"<[^<>]*>")


@rule(
    "D2C301",
    "secret-in-source",
    "error",
    why="everyone with the notebook has the secret, and it stays in the git history",
    fix="revoke the secret, then read the new one from an environment variable",
    bad=make_rule_example("db = connect('postgresql://shop:Winter-2019@db.shop.internal/sales')"),
    good=make_rule_example("import os\ndb = connect(os.environ['SALES_DB'])\npassword = 'your-password'"),
)
def secret_in_source(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.cells:
        for secret in find_secrets(cell.source):
            yield Hit(cell.index, secret.line, secret.column, f"{secret.what}: {secret.masked}")


@rule(
    "D2C302",
    "secret-in-output",
    "error",
    why="the saved output shows the secret, even if the source does not",
    fix="revoke the secret, clear the cell's output, and do not print the new one",
    bad=make_rule_example("print(settings)", outputs={0: "{'api_key': 'q7Zt0P4mLx9RbW2k', 'shop': 'north'}"}),
    good=make_rule_example("print(settings)", outputs={0: "{'api_key': '********', 'shop': 'north'}"}),
)
def secret_in_output(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        secrets = [secret for output in cell.outputs for text in output_texts(output) for secret in find_secrets(text)]
        for distinct in {(secret.what, secret.masked): secret for secret in secrets}.values():
            yield Hit(cell.index, 1, 1, f"{distinct.what} in the output: {distinct.masked}")


@rule(
    "D2C303",
    "personal-data-in-output",
    "warning",
    why="personal data is shared together with the notebook (GDPR, article 32)",
    fix="clear the output, and show counts or masked values instead",
    bad=make_rule_example("customers.head()", outputs={0: "0  maria.lopez@webpost.es  +34 612 34 56 78"}),
    good=make_rule_example("customers.head()", outputs={0: "0  customer 100234567  2019-05-01  4.256789012345678"}),
)
def personal_data_in_output(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        shown = "\n".join(text for output in cell.outputs if output.kind != "error" for text in output_texts(output))
        for match in find_personal_data(shown[:200_000]):
            yield Hit(cell.index, 1, 1, f"{match.what} in the output: {match.masked}")


def output_texts(output: Output) -> Iterator[str]:
    """Yield the texts of a saved output; if it has plain text and HTML, only the plain text."""
    if output.text:
        yield output.text
        return
    for mime in _TEXTS:
        if mime in output.data:
            yield _TAGS.sub(" ", output.data[mime])
            return
