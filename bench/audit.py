"""Ask pip-audit for known vulnerabilities of requirements.lock; what it could not look up is no clean bill.

`pip-audit` ends with 0 and 'No known vulnerabilities found' when the advisory service has nothing on a package or is out of
reach, and lists the package as skipped. Here a skipped package counts as not checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from aims import Aim, close

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("pypi", "osv")


def ask(tool: str, service: str, lock: Path) -> tuple[list[dict[str, object]], str]:
    """Return what one advisory service says of each package of the lock, and the reason where it could not be asked."""
    command = [tool, "-r", str(lock), "--require-hashes", "--disable-pip", "--vulnerability-service", service,
               "--format", "json", "--progress-spinner", "off", "--timeout", "15"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    try:
        return list(json.loads(done.stdout)["dependencies"]), ""
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]


def judged(packages: list[dict[str, object]]) -> tuple[list[str], list[str]]:
    """Return one line for each vulnerability, and the packages that could not be looked up."""
    skipped = [str(package["name"]) for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package.get('version')}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no release'}"
        for package in packages
        for flaw in package.get("vulns", ())  # type: ignore[attr-defined]
    ]
    return lines, skipped


def main(tool: str) -> int:
    """Print the vulnerabilities and the aims."""
    packages: list[dict[str, object]] = []
    skipped: list[str] = []
    for service in SERVICES:
        packages, reason = ask(tool, service, ROOT / "requirements.lock")
        lines, skipped = judged(packages)
        if packages and len(skipped) < len(packages):
            break
        print(
            f"the advisory service {service} could not be reached or knows none of the packages: {reason or 'all were skipped'}"
        )
    lines, skipped = judged(packages)
    checked = len(packages) - len(skipped)
    print(f"{checked} of {len(packages)} packages checked")
    for line in lines:
        print(f"  {line}")
    if skipped and checked:
        print(f"  not checked: {', '.join(skipped)}")
    return close(
        (
            Aim("every locked package is checked", f"{checked} of {len(packages)}", bool(packages) and not skipped),
            Aim("no known vulnerability", f"{len(lines)} found in {checked} checked", bool(checked) and not lines),
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
