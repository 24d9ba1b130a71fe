"""`bentoml serve` in a process that ends with the one that started it."""

from __future__ import annotations

import sys

from ..lifetimes import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    from bentoml_cli.cli import cli

    sys.argv = ["bentoml", "serve", *sys.argv[1:]]
    cli()
