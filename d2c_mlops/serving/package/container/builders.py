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
from d2c_mlops.serving.package.container.image_preparation import REFUSED

BUILD_SECONDS = 3600
INSTALL = "apt-get install buildah (or podman, or docker), then run the same command again"
STEP = re.compile(r"^(?:#\d+ )?(?:STEP |Step |\[(?:[\w-]+ )?)\s*(\d+)/(\d+)[\]:]*\s*(?::\s*)?(\S.*)")
FULL = "no space left"


@dataclass(frozen=True)
class Builder:
    """A program that builds images."""

    name: str
    program: str

    def command(self, context: Path, tag: str, options: Sequence[str]) -> list[str]:
        """Return the build command; only Docker's format stores a health check."""
        builder_options = {
            "docker": [],
            "podman": ["--format", "docker", "--layers"],
            "buildah": ["--format", "docker", "--layers"],
        }
        further = [f"--{option.lstrip('-')}" for option in options]
        return [self.program, "build", "--tag", tag, "--file", str(context / "Containerfile"), "--pull=false",
                *builder_options[self.name], *further, str(context)]  # fmt: skip

    def build(self, context: Path, tag: str, base: str, options: Sequence[str], log: Callable[[str], None]) -> None:
        """Build an image; `log` is called with each step. Raises UsageError if a check of the image fails."""
        lines: list[str] = []
        with subprocess.Popen(
            self.command(context, tag, options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    lines.append(line.rstrip())
                    if step := STEP.match(line):
                        log(f"step {step[1]} of {step[2]}: {step[3][:90]}")
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            raise build_failure(self.name, base, lines)

    def read(self, tag: str, path: str) -> bytes:
        """Return a file of an image, without running it as a service."""
        if self.name == "buildah":
            with self._temporary_container("from", "--pull-never", tag) as container:
                return _run_builder(self.program, "run", container, "--", "cat", path)
        with self._temporary_container("create", tag) as container:
            return _file_of_tar(_run_builder(self.program, "cp", f"{container}:{path}", "-"))

    def inspect(self, tag: str) -> tuple[str, int]:
        """Return the id of an image and its size in bytes; 0 where the builder does not report it."""
        if self.name == "buildah":
            (details,) = json.loads(_run_builder(self.program, "images", "--json", tag))
            return str(details["id"]), parse_bytes(str(details.get("size", "0")))
        (details,) = json.loads(_run_builder(self.program, "image", "inspect", tag))
        return str(details["Id"]), int(details.get("Size", 0))

    @contextmanager
    def _temporary_container(self, *command: str) -> Iterator[str]:
        container_id = _run_builder(self.program, *command).decode().strip().splitlines()[-1]
        try:
            yield container_id
        finally:
            _run_builder(self.program, "rm", container_id)


def find_builder(name: str = "") -> Builder:
    """Return a working builder: the named one, else docker, podman or buildah. Raises UsageError with what to install."""
    names = (name,) if name else ("docker", "podman", "buildah")
    faults: list[Failure] = []
    advice = INSTALL
    for program_name in names:
        program = shutil.which(program_name)
        if program is None:
            faults.append(Failure("is not installed", program_name))
            continue
        process = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60)
        if process.returncode == 0:
            return Builder(program_name, program)
        error = child_error(process.stderr.strip() or process.stdout.strip() or "no reason given", "does not work")
        faults.append(Failure(error.what, program_name))
        advice = f"start the service that {program_name} needs, or {INSTALL}"
    what = f"{name} cannot build images here" if name else "no image builder is installed"
    raise UsageError(what, failures=faults, next=advice)


def build_failure(name: str, base: str, lines: Sequence[str]) -> D2CError:
    """Return the error for a failed build."""
    text = "\n".join(lines)
    refused = list(dict.fromkeys(line.partition(REFUSED)[2] for line in lines if REFUSED in line))
    if refused:
        faults = [Failure(refusal) for refusal in refused]
        return UsageError("the image is refused", where=base, failures=faults, next="choose another --base-image")
    if FULL in text.lower():
        return Temporary("the disk is full", next="free some disk space, then build again")
    last = child_reason(text)
    steps = [step for line in lines if (step := STEP.match(line))]
    if all(int(step[1]) < 2 for step in steps):
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
    return D2CError(f"{name} could not build: {last}", failures=[Failure(line) for line in lines[-8:-1] if line])


def parse_bytes(text: str) -> int:
    """Return bytes of a size such as `812 MB`."""
    match = re.match(r"([\d.]+)\s*([kKMGT]?)", text)
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0


def _run_builder(*command: str) -> bytes:
    process = subprocess.run(command, capture_output=True, timeout=600)
    if process.returncode:
        raise child_error(process.stderr.decode(errors="replace"), f"`{' '.join(command)}` failed")
    return process.stdout


def _file_of_tar(packed: bytes) -> bytes:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        (member,) = archive.getmembers()
        content = archive.extractfile(member)
        if content is None:
            raise D2CError(f"{member.name} of the image is not a file")
        return content.read()
