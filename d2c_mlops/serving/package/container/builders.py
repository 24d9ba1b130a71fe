"""Image builders docker, podman and buildah: find a working one, build, and inspect the image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from d2c_mlops.errors import D2CError, Failure, Temporary, UsageError, child_error, child_reason
from d2c_mlops.serving.package.container.prepare import REFUSED

BUILD_SECONDS = 3600
INSTALL = "apt-get install buildah (or podman, or docker), then run the same command again"
STEP = re.compile(r"^(?:#\d+ )?(?:STEP |Step |\[(?:[\w-]+ +)?)\s*(\d+)/(\d+)[\]:]*\s*:?\s*(\S.*)")
FULL = "no space left"


@dataclass(frozen=True)
class Builder:
    """A program that builds images."""

    name: str
    program: str

    def command(self, context: Path, tag: str, options: Sequence[str]) -> list[str]:
        """Return the build command; only Docker's format stores a health check."""
        own = {
            "docker": [],
            "podman": ["--format", "docker", "--layers"],
            "buildah": ["--format", "docker", "--layers"],
        }
        further = [f"--{option.lstrip('-')}" for option in options]
        return [self.program, "build", "--tag", tag, "--file", str(context / "Containerfile"), "--pull=false",
                *own[self.name], *further, str(context)]  # fmt: skip

    def build(self, context: Path, tag: str, base: str, options: Sequence[str], said: Callable[[str], None]) -> None:
        """Build an image; `said` is called with each step. Raises UsageError where a check of the image fails."""
        lines: list[str] = []
        with subprocess.Popen(
            self.command(context, tag, options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    lines.append(line.rstrip())
                    if found := STEP.match(line):
                        said(f"step {found[1]} of {found[2]}: {found[3][:90]}")
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            raise failure(self.name, base, lines)

    def read(self, tag: str, path: str) -> bytes:
        """Return a file of an image, without running it as a service."""
        if self.name == "buildah":
            with self._container("from", "--pull-never", tag) as container:
                return _run(self.program, "run", container, "--", "cat", path)
        with self._container("create", tag) as container:
            return _untarred(_run(self.program, "cp", f"{container}:{path}", "-"))

    def inspect(self, tag: str) -> tuple[str, int]:
        """Return the id of an image and its size in bytes; 0 where the builder does not report it."""
        if self.name == "buildah":
            (told,) = json.loads(_run(self.program, "images", "--json", tag))
            return str(told["id"]), size(str(told.get("size", "0")))
        (told,) = json.loads(_run(self.program, "image", "inspect", tag))
        return str(told["Id"]), int(told.get("Size", 0))

    @contextmanager
    def _container(self, *command: str) -> Iterator[str]:
        made = _run(self.program, *command).decode().strip().splitlines()[-1]
        try:
            yield made
        finally:
            _run(self.program, "rm", made)


def find_builder(name: str = "") -> Builder:
    """Return a working builder: the named one, else docker, podman or buildah. Raises UsageError with what to install."""
    names = (name,) if name else ("docker", "podman", "buildah")
    faults: list[Failure] = []
    advice = INSTALL
    for each in names:
        program = shutil.which(each)
        if program is None:
            faults.append(Failure("is not installed", each))
            continue
        done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return Builder(each, program)
        told = child_error(done.stderr.strip() or done.stdout.strip() or "no reason given", "does not work")
        faults.append(Failure(told.what, each))
        advice = f"start the service that {each} needs, or {INSTALL}"
    what = f"{name} cannot build images here" if name else "no image builder is installed"
    raise UsageError(what, failures=faults, next=advice)


def failure(name: str, base: str, lines: Sequence[str]) -> D2CError:
    """Return the error for a failed build."""
    text = "\n".join(lines)
    refused = list(dict.fromkeys(line.partition(REFUSED)[2] for line in lines if REFUSED in line))
    if refused:
        faults = [Failure(each) for each in refused]
        return UsageError("the image is refused", where=base, failures=faults, next="choose another --base-image")
    if FULL in text.lower():
        return Temporary("the disk is full", next="free some disk space, then build again")
    last = child_reason(text)
    steps = [found for line in lines if (found := STEP.match(line))]
    if all(int(found[1]) < 2 for found in steps):
        return UsageError(
            f"the base image cannot be pulled: {last}", where=base,
            next=f"{name} pull {base}, or use a local one: --base-image localhost/NAME",
        )  # fmt: skip
    if "prepare.py" in steps[-1][3] and '"base"' in steps[-1][3]:
        return UsageError(f"the base image has no python3: {last}", where=base, next="choose another --base-image")
    if "apt-get" in steps[-1][3]:
        return UsageError(
            f"the base image lacks a library that the model needs, and it cannot be installed: {last}", where=base,
            next="use a base image that has it, or give the build network access: --opt network=host",
        )  # fmt: skip
    return D2CError(f"{name} could not build: {last}", failures=[Failure(each) for each in lines[-8:-1] if each])


def size(text: str) -> int:
    """Return bytes of a size such as `812 MB`."""
    found = re.match(r"([\d.]+)\s*([kKMGT]?)", text)
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=600)
    if done.returncode:
        raise child_error(done.stderr.decode(errors="replace"), f"`{' '.join(command)}` failed")
    return done.stdout


def _untarred(packed: bytes) -> bytes:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        (member,) = archive.getmembers()
        held = archive.extractfile(member)
        if held is None:
            raise D2CError(f"{member.name} of the image is not a file")
        return held.read()
