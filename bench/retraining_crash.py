"""Kill retrainings at random moments, 50 trials with real training runs: `make test-retraining-crash`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from aims import Aim, close

ROOT = Path(__file__).resolve().parents[1]
TEST = "tests/operations/test_retrain.py"
LINE = re.compile(r"measured: (\d+) retrainings, (.+)")


def main() -> int:
    """Run the trials and print the aims; return 1 where one is missed and STRICT=1."""
    trials = int(os.environ.get("CRASH_TRIALS", "50"))
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-s", "-k", "random_moments", TEST]
    environment = {**os.environ, "CRASH_TRIALS": str(trials)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    found = LINE.search(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED"))]
    measured = f"{found[1]} retrainings, {found[2]}" if found else "; ".join(lines[:2]) or "the trials did not end"
    is_met = done.returncode == 0 and found is not None and int(found[1]) == trials
    return close(
        [
            Aim(f"one challenger for each cause in {trials} retrainings under kill -9", measured, is_met),
            Aim("no half promotion: champion, rollout, services and alias agree after each", measured, is_met),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
