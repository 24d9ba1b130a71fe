"""Run `bentoml serve` in a process that ends with its parent."""

from __future__ import annotations

import sys

from d2c_mlops.parent_death import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    # The Bento contains its own copy of this package, which answers the requests.
    for name in [signal_number for signal_number in sys.modules if signal_number.partition(".")[0] == "d2c_mlops"]:
        del sys.modules[name]
    from bentoml_cli.cli import cli

    sys.argv = ["bentoml", "serve", *sys.argv[1:]]
    cli()
