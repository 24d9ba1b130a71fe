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

from d2c_mlops.decisions.records import Decision
from d2c_mlops.decisions.rules import DecisionRule
from d2c_mlops.decisions.words import Words, shown, typed, unit_of
from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.serving.http.messages import Answer

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
FORMER = (
    ("auto", "auto: ", "auto: "),
    ("auto", "asked, because this does not hold: ", "needs approval, because this does not hold: "),
    ("allow", "allow does not hold: ", "allow does not hold: "),
)
BASE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def shell(title: str, body: str, status: int = 200) -> Answer:
    """Return a page."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
    text = (
        f'<!doctype html><html lang="en"><head>{head}<title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )
    return Answer(text.encode(), status, HTML, content_security_policy=f"{BASE_POLICY}; form-action 'self'")


def confirm(
    decision: Decision,
    base: dict[str, Any],
    action: str,
    by: str,
    trouble: str = "",  # error of the value typed before
    given: Mapping[str, str] = MappingProxyType({}),  # what was typed before
    contract: Contract | None = None,  # contract of the version that predicted: units and labels
) -> Answer:
    """Return the confirmation page of a link, with a button. Opening it decides nothing."""
    fields = ""
    if action == "edit":
        words = Words.of(contract)
        field = words.field(decision.field, "outputs")
        text = escape(given.get("value", typed(decision.value, field)))
        label = escape(words.capitalized_label(decision.field, "outputs") + (unit_of(field) if field else ""))
        fields += f'<label for="value">{label}</label><input id="value" name="value" value="{text}" required>'
    needed = " required" if action == "edit" else ""
    fields += f'<label for="reason">Why</label><textarea id="reason" name="reason" rows="2" maxlength="2000"{needed}>{escape(given.get("reason", ""))}</textarea>'
    button = f'<button class="{action}">{TITLES[action]}</button>'
    told = f'<p role="alert" style="color:var(--stop)">{escape(trouble)}</p>' if trouble else ""
    form = f'<form method="post">{told}{fields}{button}</form><p class="soft">You decide as {escape(by)}.</p>'
    return shell(
        f"{TITLES[action]}: {decision.title}", _about(decision, base, contract) + form, 422 if trouble else 200
    )


def done(decision: Decision, contract: Contract | None = None) -> Answer:
    """Return the page with the result of a decision."""
    words = Words.of(contract)
    said = {"approved": "approved", "rejected": "rejected", "edited": "changed and approved"}
    word = said.get(decision.verdict or "", decision.status)
    body = f"<h1>{escape(decision.model)}, {escape(decision.title)}: {word}</h1>"
    value = escape(
        f"{words.capitalized_label(decision.field, 'outputs')} {shown(decision.value, words.field(decision.field, 'outputs'))}"
    )
    gone = "It is not applied." if decision.verdict == "rejected" else "It is applied automatically."
    return shell("Decided", f'{body}<p class="big">{value}</p><p class="soft">{gone} This page can be closed.</p>')


def trouble(status: int, title: str, detail: str) -> Answer:
    """Return the error page of a link."""
    return shell(title, f"<h1>{escape(title)}</h1><p>{escape(detail)}</p>", status)


def facts(decision: Decision, base: dict[str, Any], contract: Contract | None) -> dict[str, Any]:
    """Return a decision as text: labels, values rounded by their units, reasons."""
    words = Words.of(contract)
    field = words.field(decision.field, "outputs")
    known = [(name, "inputs", value) for name, value in base["inputs"].items() if name not in decision.about]
    seen = {*decision.about, decision.field}
    known += [(name, "outputs", value) for name, value in base["outputs"].items() if name not in seen]
    about = ", ".join(  # a number that identifies is not rounded and has no separators
        str(value) if isinstance(value, int) else shown(value, words.field(name))
        for name, value in decision.about.items()
    )
    return {
        "about": about,
        "label": words.capitalized_label(decision.field, "outputs"),
        "unit": unit_of(field) if field else "",
        "proposed": shown(decision.proposed, field),
        "typed": typed(decision.proposed, field),
        "reason": reason_of(decision, words),
        "known": [
            [words.capitalized_label(name, side), shown(value, words.field(name, side))] for name, side, value in known
        ],
        "reasons": [_words(each) for each in base["reasons"] or []],
    }


def reason_of(decision: Decision, words: Words) -> str:
    """Return the reason of a decision as text; a rule at the end of an older reason becomes a sentence."""
    for name, former, head in FORMER:
        rule = decision.policy.get(name)
        if rule and decision.reason == f"{former}{rule}":
            with suppress(UsageError):
                return f"{head}{words.sentence(DecisionRule.of(rule))}"
    return decision.reason


def _about(decision: Decision, base: dict[str, Any], contract: Contract | None) -> str:
    told = facts(decision, base, contract)
    head = f'<p class="soft">{escape(decision.model)}, version {decision.version}</p><h1>{escape(told["about"])}</h1>'
    head += f'<p class="big">{escape(told["label"])} {escape(told["proposed"])}</p>'
    head += f'<p class="soft">{escape(told["reason"])}; open until {decision.deadline_at:%Y-%m-%d %H:%M} UTC</p>'
    rows = "".join(f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in told["known"])
    said = "".join(f"<li>{escape(each)}</li>" for each in told["reasons"])
    return head + (f"<h2>Why</h2><ul>{said}</ul>" if said else "") + f"<h2>Inputs and outputs</h2><table>{rows}</table>"


def _words(reason: Any) -> str:
    if isinstance(reason, dict):
        return str(reason.get("text") or reason.get("words") or json.dumps(reason, ensure_ascii=False))
    return str(reason)


@cache
def _inbox() -> tuple[bytes, str]:
    text = Path(__file__).with_name("inbox.html").read_text(encoding="utf-8").replace("/*STYLE*/", STYLE)
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return text.encode(), f"{BASE_POLICY}; script-src 'sha256-{digest}'; connect-src 'self'; form-action 'none'"


def inbox() -> Answer:
    """Return the page that lists pending decisions for a caller with an API key."""
    text, rules = _inbox()
    return Answer(text, media=HTML, content_security_policy=rules)
