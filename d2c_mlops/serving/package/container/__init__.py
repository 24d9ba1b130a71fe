"""Build a container image of a Bento with docker, podman or buildah: exact pins, no root, read-only except for volumes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from d2c_mlops.data.store import write_atomic
from d2c_mlops.registry.versions import Version
from d2c_mlops.serving.package.bento import Bento
from d2c_mlops.serving.package.container.builders import Builder, find_builder
from d2c_mlops.serving.package.container.containerfile import SBOM, containerfile
from d2c_mlops.serving.package.container.sbom import bill_of_materials
from d2c_mlops.serving.package.container.wheels import install_wheels
from d2c_mlops.settings import Settings

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BASE = f"docker.io/library/python:{PYTHON}-slim-bookworm"
OWN = ("sbom.cdx.json", "image.json", "load.json")  # written to the Bento's folder, not part of the Bento


@dataclass(frozen=True)
class Image:
    """A built and checked image."""

    tag: str
    id: str
    size: int  # bytes
    builder: str
    base: str
    bento: str
    packages: int  # Python distributions in it
    created: str
    sbom: str  # file

    def to_dict(self) -> dict[str, Any]:
        """Return the image as JSON values."""
        return asdict(self)


def containerize(
    bento: Bento,
    version: Version,
    settings: Settings,
    *,
    tag: str = "",  # MODEL:vVERSION when empty
    backend: str = "",  # docker, podman or buildah; default: the first that works
    base: str = "",  # [d2c] base_image when empty, else the official slim image of this Python
    options: Sequence[str] = (),  # further options of the builder, such as network=host
    log: Callable[[str], None] = lambda _: None,  # called with each step
) -> Image:
    """Build the image of a Bento and write its bill of materials.

    Packages are downloaded on this machine, with its index and credentials, and copied: the build needs no network and the
    image contains no credentials. Raises UsageError without a builder and where a check of the image fails: another Python, pins
    that differ, a module that serving must not import, a missing library.
    """
    builder = find_builder(backend)
    base, tag = base or settings.base_image or BASE, tag or f"{version.model}:v{version.version}"
    log(f"building {tag} with {builder.name} on {base}")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with TemporaryDirectory(prefix="image-", dir=settings.store) as name:
        context = Path(name)
        packages = _write_context(context, bento, version, base, created, log)
        builder.build(context, tag, base, options, log)
        draft = context / "built.cdx.json"
        draft.write_bytes(builder.read(tag, SBOM))
        identity, size = builder.inspect(tag)
        write_atomic(bento.folder / "sbom.cdx.json", draft.read_bytes())
    image = Image(tag, identity, size, builder.name, base, bento.tag, packages, created,
                  str(bento.folder / "sbom.cdx.json"))  # fmt: skip
    write_atomic(bento.folder / "image.json", json.dumps(image.to_dict(), indent=1).encode())
    return image


def _write_context(
    context: Path, bento: Bento, version: Version, base: str, created: str, log: Callable[[str], None]
) -> int:
    """Write the build context; return the number of distributions."""
    pins = (bento.folder / "env" / "python" / "requirements.txt").read_text(encoding="utf-8")
    (context / "pins.txt").write_text(pins, encoding="utf-8")
    site = context / "site"
    log(f"downloading {len(pins.split())} pinned packages")
    install_wheels(context / "pins.txt", site, PYTHON)
    shutil.copytree(bento.folder, context / "bento", ignore=shutil.ignore_patterns(*OWN, "__pycache__"))
    shutil.copy2(Path(__file__).with_name("image_preparation.py"), context / "prepare.py")
    (context / "sbom.cdx.json").write_text(bill_of_materials(site, version, bento.tag, base), encoding="utf-8")
    (context / "Containerfile").write_text(
        containerfile(version, bento.tag, base, created, PYTHON, pins), encoding="utf-8"
    )
    for path in (context, *context.rglob("*")):  # readable by the user that the service runs as
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    return len(pins.split())


__all__ = ["BASE", "Builder", "Image", "containerize", "find_builder"]
