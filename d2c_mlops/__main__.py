"""`python -m d2c_mlops` is `d2c`."""

from .cli import main

main()
