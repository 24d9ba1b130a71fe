"""Pages for people: what is asked, what a click would do, what was done."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..serving.http import Answer
from .records import Decision

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
    trouble: str = "",  # why what was typed before was not taken
    typed: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """Return the page behind a link: what would be decided, and the button that does it. Opening it decides nothing."""
    fields = ""
    if action == "edit":
        shown = escape(typed.get("value", str(decision.value)))
        fields += f'<label for="value">{escape(decision.field)}</label><input id="value" name="value" value="{shown}" required>'
    needed = " required" if action == "edit" else ""
    fields += f'<label for="reason">Why</label><textarea id="reason" name="reason" rows="2" maxlength="2000"{needed}>{escape(typed.get("reason", ""))}</textarea>'
    button = f'<button class="{action}">{TITLES[action]}</button>'
    told = f'<p role="alert" style="color:var(--stop)">{escape(trouble)}</p>' if trouble else ""
    form = f'<form method="post">{told}{fields}{button}</form><p class="soft">You decide as {escape(by)}.</p>'
    return shell(f"{TITLES[action]}: {decision.title}", _about(decision, base) + form, 422 if trouble else 200)


def done(decision: Decision) -> Answer:
    """Return the page that says what was decided."""
    said = {"approved": "approved", "rejected": "rejected", "edited": "changed and approved"}
    word = said.get(decision.verdict or "", decision.status)
    body = f"<h1>{escape(decision.model)}, {escape(decision.title)}: {word}</h1>"
    value = f"{escape(decision.field)} {escape(str(decision.value))}"
    gone = "It is not applied." if decision.verdict == "rejected" else "It is applied now, without anything else to do."
    return shell("Decided", f'{body}<p class="big">{value}</p><p class="soft">{gone} This page can be closed.</p>')


def trouble(status: int, title: str, detail: str) -> Answer:
    """Return the page that says why a link did nothing."""
    return shell(title, f"<h1>{escape(title)}</h1><p>{escape(detail)}</p>", status)


def _about(decision: Decision, base: dict[str, Any]) -> str:
    head = f'<p class="soft">{escape(decision.model)}, version {decision.version}</p><h1>{escape(decision.title)}</h1>'
    head += f'<p class="big">{escape(decision.field)} {escape(str(decision.proposed))}</p>'
    head += f'<p class="soft">{escape(decision.reason)}; open until {decision.deadline_at:%Y-%m-%d %H:%M} UTC</p>'
    skipped = {*decision.about, decision.field}
    known = {k: v for k, v in base["inputs"].items() if k not in decision.about}
    known |= {k: v for k, v in base["outputs"].items() if k not in skipped}
    rows = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in known.items())
    reasons = base["reasons"] or []
    said = "".join(f"<li>{escape(_words(each))}</li>" for each in reasons)
    return head + (f"<h2>Why</h2><ul>{said}</ul>" if said else "") + f"<h2>What is known</h2><table>{rows}</table>"


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
    """Return the page on which somebody with an API key sees all that waits and decides it."""
    text, rules = _inbox()
    return Answer(text, media=HTML, content_security_policy=rules)
