"""Script that runs inside an image during the build, with the standard library only: prepare the image, then check it."""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

HOME, BENTO, STATE = Path("/opt/d2c"), Path("/home/bentoml/bento"), Path("/state")
REFUSED = "D2C-REFUSED "
LOADED = """
from pathlib import Path
import d2c_mlops.serving.app.service
from d2c_mlops.serving.predict.older_contracts import load_model as load
load(Path("model"))
"""


def exit_with_errors(faults: list[str]) -> None:
    """End the build if there are errors."""
    for fault in faults:
        print(f"{REFUSED}{fault}", flush=True)
    if faults:
        sys.exit(3)


def check_base(python: str, forbidden: list[str]) -> None:
    """Refuse a base image before anything is copied into it."""
    base_python = f"{sys.version_info.major}.{sys.version_info.minor}"
    version_faults = (
        [f"the base image has Python {base_python}; the packages are for {python}"] if base_python != python else []
    )
    exit_with_errors([*version_faults, *forbidden_modules(forbidden)])


def prepare_image(user: int) -> None:
    """Compile copied modules, because the root file system is read-only later; create the user and its folder."""
    compile_folder(HOME / "site")
    passwd, group = Path("/etc/passwd"), Path("/etc/group")
    if f":x:{user}:" not in passwd.read_text():
        with passwd.open("a") as out:
            out.write(f"bentoml:x:{user}:{user}::/tmp:/usr/sbin/nologin\n")
        with group.open("a") as out:
            out.write(f"bentoml:x:{user}:\n")
    STATE.mkdir(exist_ok=True)
    os.chown(STATE, user, user)


def compile_folder(folder: Path) -> None:
    """Compile a folder with unchecked bytecode, because its files do not change any more."""
    mode = importlib.import_module("py_compile").PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(str(folder), quiet=2, workers=0, invalidation_mode=mode)


def check_image(user: int, without: list[str]) -> None:
    """Refuse pins that differ, modules that serving must not have, and a service that cannot be imported."""
    faults = [*unpinned_versions((HOME / "pins.txt").read_text().split()), *forbidden_modules(without)]
    exit_with_errors(faults)
    compile_folder(BENTO / "src")
    environment = {**os.environ, "D2C_SERVICE_MODE": "development"}
    process = subprocess.run([sys.executable, "-c", LOADED], cwd=BENTO / "src", user=user, group=user, extra_groups=[],
                          env=environment, capture_output=True, text=True)  # fmt: skip
    if process.returncode:
        exit_with_errors([f"the service cannot be imported: {error_line(process.stderr)}"])
    file = HOME / "sbom.cdx.json"
    bill = json.loads(file.read_text())
    bill["components"] += system_packages()
    file.write_text(json.dumps(bill, indent=1))


def error_line(text: str) -> str:
    """Return the error line of a failed process, without the lines after it."""
    lines = [line.rstrip() for line in text.strip().splitlines() if line.strip()]
    while len(lines) > 1 and lines[-1].startswith(" "):
        lines.pop()
    return lines[-1] if lines else "no reason given"


def unpinned_versions(pins: list[str]) -> list[str]:
    """Return the pins that differ from installed versions."""
    faults = []
    for pin in pins:
        name, _, pinned = pin.partition("==")
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "none"
        if installed != pinned:
            faults.append(f"{name} {pinned} is pinned, {installed} is installed")
    return faults


def forbidden_modules(names: list[str]) -> list[str]:
    """Return forbidden modules that can be imported."""
    importable = [name for name in names if importlib.util.find_spec(name) is not None]
    return [f"{name} can be imported: use a base image without it" for name in importable]


def system_packages(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Return Debian's packages as components of CycloneDX; on other systems nothing."""
    os_release = dict(line.split("=", 1) for line in (root / "etc/os-release").read_text().splitlines() if "=" in line)
    vendor = os_release.get("ID", "debian").strip('"')
    folder = root / "var/lib/dpkg"
    files = [folder / "status", *sorted((folder / "status.d").glob("*"))]
    components = []
    for block in "\n\n".join(file.read_text() for file in files if file.is_file()).split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
        if "Package" in fields and "installed" in fields.get("Status", "installed"):
            name, package_version, kind = (
                fields["Package"],
                fields.get("Version", ""),
                fields.get("Architecture", "all"),
            )
            purl = f"pkg:deb/{vendor}/{quote(name)}@{quote(package_version, safe='')}?arch={kind}"
            components.append(
                {"bom-ref": purl, "type": "library", "name": name, "version": package_version, "purl": purl}
            )
    return components


if __name__ == "__main__":
    step, python, number, *names = sys.argv[1:]
    if step == "base":
        check_base(python, names)
    elif step == "install":
        prepare_image(int(number))
    else:
        check_image(int(number), names)
