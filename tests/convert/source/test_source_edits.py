"""Edits of source text keep what the source means."""

import ast

import pytest

from d2c_mlops.convert.source.source_edits import indent_source


@pytest.mark.parametrize(
    "source",
    [
        "a = 1\nif a:\n    b = 2",
        'query = """\nselect 1\n  from orders\n"""\nn = 2',
        'def f():\n    """First line.\n\n    second line\n    """\n    return 1',
        "text = f'''\n{a}\n  {b!r}\n'''\nif a:\n    other = 'x'",
        "data = b'''\n  1\n'''",
        "a = [\n    1,\n  # a comment\n]\nb = 'one \\\n  two'",
        'a = f"""\n{f"{b}"}\n"""; c = """\n"""',
        "text = 'a form feed \x0c in a text'\nn = 1",
    ],
)
def test_indented_source_means_the_same(source: str) -> None:
    indented = ast.parse("if 1:\n" + indent_source(source)).body[0]
    assert isinstance(indented, ast.If)
    assert ast.dump(ast.Module(indented.body, [])) == ast.dump(ast.parse(source))


def test_lines_outside_of_texts_are_four_columns_deeper_with_their_comments() -> None:
    assert indent_source("a = 1  # one\n\nb = 2") == "    a = 1  # one\n\n    b = 2"
