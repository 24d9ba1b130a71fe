"""What cells print and show: without secrets, neighbouring prints as one, and each within bounds."""

from __future__ import annotations

from typing import Any

from .redaction import Redaction

KEPT = 2**19  # characters kept of the beginning and of the end of what a cell prints
SHOWN = 2**24  # characters of one picture or table


class Printed:
    """What has been printed so far."""

    def __init__(self, redaction: Redaction) -> None:
        self.redaction = redaction
        self.left_out: dict[int, int] = {}  # characters, by the identity of the output that lacks them

    def content(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the parts of a kernel's message that are shown, without secrets and without what is far too large."""
        names = {"text", "data", "ename", "evalue", "traceback"} & content.keys()
        clean: dict[str, Any] = {name: self.redaction.clean(content[name]) for name in names}
        if isinstance(clean.get("data"), dict):
            clean["data"] = {kind: _bounded(value, kind) for kind, value in clean["data"].items()}
        return clean

    def merged(self, outs: list[Any], out: Any) -> Any:
        """Join a print with the one before it in the cell's outputs; keep beginning and end when it gets long."""
        if out is None or out.output_type != "stream" or len(outs) < 1 or outs[-1] is not out:
            return out
        if len(outs) > 1 and outs[-2].output_type == "stream" and outs[-2].name == out.name:
            outs.pop()
            outs[-1].text = self.redaction.clean(outs[-1].text + out.text)
            out = outs[-1]
        self._shorten(out)
        return out

    def _shorten(self, out: Any) -> None:
        before = self.left_out.get(id(out), 0)
        mark = f"\n[{before:,} characters left out]\n" if before else ""
        if len(out.text) <= 2 * KEPT + len(mark):
            return
        left = before + len(out.text) - len(mark) - 2 * KEPT
        self.left_out[id(out)] = left
        out.text = f"{out.text[:KEPT]}\n[{left:,} characters left out]\n{out.text[-KEPT:]}"


def _bounded(value: Any, kind: str) -> Any:
    if not isinstance(value, str) or len(value) <= SHOWN:
        return value
    if kind == "text/plain":
        return f"{value[:KEPT]}\n[{len(value) - 2 * KEPT:,} characters left out]\n{value[-KEPT:]}"
    return f"[{len(value):,} characters of {kind} left out]" if kind.startswith("text/") else ""
