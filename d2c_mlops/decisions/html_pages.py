"""HTML pages of the decision service: pending decisions, confirmation of a link, result, error."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d2c_mlops.decisions.decision_rows import Decision
from d2c_mlops.decisions.rules import DecisionRule
from d2c_mlops.decisions.wording import Wording, display_value, input_text, unit_suffix
from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.serving.http.messages import HttpAnswer

HTML = "text/html; charset=utf-8"
STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#60646c;--line:#d9d9e0;--paper:#fff;--back:#f4f4f6;--go:#18794e;--stop:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#edeef0;--soft:#b0b4ba;--line:#43484e;--paper:#212225;--back:#111113;--go:#3dd68c;--stop:#ff9592}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{width:min(44rem,100% - 2rem);margin:2rem auto;padding:1.5rem 2rem 2rem;background:var(--paper);border:1px solid var(--line);border-radius:12px}
h1{font-size:1.4rem;margin:0 0 .25rem}h2{font-size:1rem;margin:1.5rem 0 .25rem}.soft{color:var(--soft)}.big{font-size:2rem;font-weight:600;margin:.25rem 0}p{margin:.4rem 0}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .75rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:500;color:var(--soft);width:40%}label{display:block;margin:.75rem 0 .25rem}
input,textarea{width:100%;padding:.5rem .6rem;font:inherit;color:inherit;background:transparent;border:1px solid var(--line);border-radius:6px}
button{font:inherit;font-weight:600;padding:.55rem 1.2rem;margin:1rem .5rem 0 0;border:1px solid var(--go);border-radius:6px;background:var(--go);color:var(--paper);cursor:pointer}
button.reject{background:transparent;color:var(--stop);border-color:var(--stop)}ul{margin:.25rem 0;padding-left:1.25rem}
"""
TITLES = {"approve": "Approve", "reject": "Reject", "edit": "Edit and approve"}
# Reasons in the ledger that end with a rule, as earlier versions wrote them: the policy's rule, their beginning, what is shown instead.
FORMER_REASONS = (
    ("auto", "auto: ", "auto: "),
    ("auto", "asked, because this does not hold: ", "needs approval, because this does not hold: "),
    ("allow", "allow does not hold: ", "allow does not hold: "),
)
BASE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def html_page(title: str, body: str, status: int = 200) -> HttpAnswer:
    """Return a page."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
    text = (
        f'<!doctype html><html lang="en"><head>{head}<title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )
    return HttpAnswer(text.encode(), status, HTML, content_security_policy=f"{BASE_POLICY}; form-action 'self'")


def confirmation_page(
    decision: Decision,
    base: dict[str, Any],
    action: str,
    decider: str,
    error: str = "",  # error of the value typed before
    form_values: Mapping[str, str] = MappingProxyType({}),  # what was typed before
    contract: Contract | None = None,  # contract of the version that predicted: units and labels
) -> HttpAnswer:
    """Return the confirmation page of a link, with a button. Opening it decides nothing."""
    fields = ""
    if action == "edit":
        words = Wording.of(contract)
        field = words.field(decision.field, "outputs")
        text = escape(form_values.get("value", input_text(decision.value, field)))
        label = escape(words.capitalized_label(decision.field, "outputs") + (unit_suffix(field) if field else ""))
        fields += f'<label for="value">{label}</label><input id="value" name="value" value="{text}" required>'
    needed = " required" if action == "edit" else ""
    fields += f'<label for="reason">Why</label><textarea id="reason" name="reason" rows="2" maxlength="2000"{needed}>{escape(form_values.get("reason", ""))}</textarea>'
    button = f'<button class="{action}">{TITLES[action]}</button>'
    alert = f'<p role="alert" style="color:var(--stop)">{escape(error)}</p>' if error else ""
    form = f'<form method="post">{alert}{fields}{button}</form><p class="soft">You decide as {escape(decider)}.</p>'
    return html_page(
        f"{TITLES[action]}: {decision.title}", _page_heading(decision, base, contract) + form, 422 if error else 200
    )


def result_page(decision: Decision, contract: Contract | None = None) -> HttpAnswer:
    """Return the page with the result of a decision."""
    words = Wording.of(contract)
    verdicts = {"approved": "approved", "rejected": "rejected", "edited": "changed and approved"}
    word = verdicts.get(decision.verdict or "", decision.status)
    body = f"<h1>{escape(decision.model)}, {escape(decision.title)}: {word}</h1>"
    value = escape(
        f"{words.capitalized_label(decision.field, 'outputs')} {display_value(decision.value, words.field(decision.field, 'outputs'))}"
    )
    gone = "It is not applied." if decision.verdict == "rejected" else "It is applied automatically."
    return html_page("Decided", f'{body}<p class="big">{value}</p><p class="soft">{gone} This page can be closed.</p>')


def error_page(status: int, title: str, detail: str) -> HttpAnswer:
    """Return the error page of a link."""
    return html_page(title, f"<h1>{escape(title)}</h1><p>{escape(detail)}</p>", status)


def decision_texts(decision: Decision, base: dict[str, Any], contract: Contract | None) -> dict[str, Any]:
    """Return a decision as text: labels, values rounded by their units, reasons."""
    words = Wording.of(contract)
    field = words.field(decision.field, "outputs")
    fields = [(name, "inputs", value) for name, value in base["inputs"].items() if name not in decision.about]
    shown_fields = {*decision.about, decision.field}
    fields += [(name, "outputs", value) for name, value in base["outputs"].items() if name not in shown_fields]
    about = ", ".join(  # a number that identifies is not rounded and has no separators
        str(value) if isinstance(value, int) else display_value(value, words.field(name))
        for name, value in decision.about.items()
    )
    return {
        "about": about,
        "label": words.capitalized_label(decision.field, "outputs"),
        "unit": unit_suffix(field) if field else "",
        "proposed": display_value(decision.proposed, field),
        "typed": input_text(decision.proposed, field),
        "reason": reason_text(decision, words),
        "known": [
            [words.capitalized_label(name, side), display_value(value, words.field(name, side))]
            for name, side, value in fields
        ],
        "reasons": [_reason_text(reason) for reason in base["reasons"] or []],
    }


def reason_text(decision: Decision, wording: Wording) -> str:
    """Return the reason of a decision as text; a rule at the end of an older reason becomes a sentence."""
    for name, former, head in FORMER_REASONS:
        rule = decision.policy.get(name)
        if rule and decision.reason == f"{former}{rule}":
            with suppress(UsageError):
                return f"{head}{wording.sentence(DecisionRule.of(rule))}"
    return decision.reason


def _page_heading(decision: Decision, base: dict[str, Any], contract: Contract | None) -> str:
    texts = decision_texts(decision, base, contract)
    head = f'<p class="soft">{escape(decision.model)}, version {decision.version}</p><h1>{escape(texts["about"])}</h1>'
    head += f'<p class="big">{escape(texts["label"])} {escape(texts["proposed"])}</p>'
    head += f'<p class="soft">{escape(texts["reason"])}; open until {decision.deadline_at:%Y-%m-%d %H:%M} UTC</p>'
    rows = "".join(f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in texts["known"])
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in texts["reasons"])
    return (
        head
        + (f"<h2>Why</h2><ul>{reasons}</ul>" if reasons else "")
        + f"<h2>Inputs and outputs</h2><table>{rows}</table>"
    )


def _reason_text(reason: Any) -> str:
    if isinstance(reason, dict):
        return str(reason.get("text") or reason.get("words") or json.dumps(reason, ensure_ascii=False))
    return str(reason)


@cache
def _inbox_page() -> tuple[bytes, str]:
    text = Path(__file__).with_name("inbox.html").read_text(encoding="utf-8").replace("/*STYLE*/", STYLE)
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return text.encode(), f"{BASE_POLICY}; script-src 'sha256-{digest}'; connect-src 'self'; form-action 'none'"


def inbox_page() -> HttpAnswer:
    """Return the page that lists pending decisions for a caller with an API key."""
    text, rules = _inbox_page()
    return HttpAnswer(text, media=HTML, content_security_policy=rules)
