"""What cells print: joined, bounded, without secrets, progress bars as they ended."""

from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2c_mlops.runs.execution.cell_output import HEAD, LIVE, CellOutput, PrintedStream, utf8_safe
from d2c_mlops.runs.secrets.redaction import Redaction


class Secrets(Redaction):
    """Takes one text out."""

    def remove_secrets(self, value: object) -> object:
        return value.replace("hunter2!", "[secret:PASS]") if isinstance(value, str) else value


def shown(*chunks: str) -> str:
    stream = PrintedStream(Secrets(Path()))
    for chunk in chunks:
        stream.feed(chunk)
    return stream.text


@given(st.lists(st.text(st.characters(exclude_characters="\r\b\x1b", exclude_categories=["Cs"]))))
def test_plain_text_stays_as_it_is(chunks: list[str]) -> None:
    assert shown(*chunks) == "".join(chunks)


def test_a_progress_bar_is_shown_as_it_ended() -> None:
    assert shown("start\n", *(f"\r{n}%|{'#' * n}" for n in range(101)), "\nend\n") == f"start\n100%|{'#' * 100}\nend\n"
    assert shown("\r 10%", "\r100%", "\r\n", "done") == "100%\ndone"
    assert shown("a\r\nb\r\n") == "a\nb\n"
    assert shown("\rinner 3/3", "\r        ", "\rend\n") == "end\n" and shown("\rdone", "\r   ") == ""


def test_nested_bars_are_shown_as_they_ended() -> None:
    updates = [f"\n\rinner {n}\x1b[A" for n in range(5)] + ["\router 1", "\n\rinner done\x1b[A", "\router 2\n", "\n"]
    assert shown("\router 0", *updates) == "outer 2\ninner done\n"


def test_a_bar_of_a_million_steps_needs_no_room() -> None:
    stream = PrintedStream(Secrets(Path()))
    for n in range(30_000):
        stream.feed(f"\r{n:06} of 030000 {'=' * 30}")
    assert stream.text == f"029999 of 030000 {'=' * 30}" and stream.left_out == 0


def test_long_texts_keep_beginning_and_end() -> None:
    text = "".join(f"line {n}\n" for n in range(150_000))
    for size in (1_000, 7_777, 10**7):
        result = shown(*(text[i : i + size] for i in range(0, len(text), size)))
        assert result.startswith("line 0\nline 1\n") and result.endswith("line 149998\nline 149999\n")
        left = len(text) - (len(result) - len(result[HEAD:].split("]\n")[0]) - 2)
        assert f"[{left:,} characters left out]" in result and len(result) < 2 * HEAD + 100
    assert shown(*["x" * 1000] * 3_000).startswith("x" * HEAD + "\n[")


@pytest.mark.parametrize("place", [0, 10, LIVE - 4, LIVE, 2 * LIVE - 4, 2 * LIVE + 1, HEAD - 4, HEAD + 3])
@pytest.mark.parametrize("size", [97, 2**16])
def test_a_secret_is_taken_out_wherever_prints_are_cut(place: int, size: int) -> None:
    text = "y" * place + "hunter2!" + "y" * 2 * LIVE
    result = shown(*(text[i : i + size] for i in range(0, len(text), size)))
    assert "hunter2!" not in result and result.count("[secret:PASS]") == 1


def test_a_bar_goes_on_behind_prints_between_its_steps() -> None:
    printed, outs = CellOutput(Secrets(Path())), []
    for name, text in [("stderr", "\r0/3"), ("stdout", "epoch 1\n"), ("stderr", "\r1/3"), ("stdout", "epoch 2\n"),
                       ("stderr", "\r3/3\n"), ("stderr", "\r0/2"), ("stderr", "\r2/2\n")]:  # fmt: skip
        outs.append(nbformat.v4.new_output("stream", name=name, text=text))
        printed.merged(outs, outs[-1])
    cell = nbformat.v4.new_code_cell(outputs=outs)
    printed.finish(cell)
    assert [(out.name, out.text) for out in cell.outputs] == [
        ("stderr", "3/3\n"), ("stdout", "epoch 1\nepoch 2\n"), ("stderr", "2/2\n")
    ]  # fmt: skip


def test_what_utf_8_cannot_hold_is_replaced() -> None:
    assert utf8_safe({"text": ["a\udcff", "ü"]}) == {"text": ["a\ufffd", "ü"]}


@pytest.mark.parametrize("count", ["9" * 5000, "9" * 400, "\u0663", "\u00b2"])
def test_a_cursor_movement_without_end_stops_at_the_first_line(count: str) -> None:
    assert shown("a\nb\nc", f"\x1b[{count}A", "\rd\n").startswith(("d\n", "a\n"))
