"""Containerfile of a Bento's image: few layers, those that change least first."""

from __future__ import annotations

import json

from d2c_mlops.registry.versions import Version
from d2c_mlops.serving.package.requirements import FORBIDDEN

USER = 1034  # as in BentoML's images; manifests refer to it
PORT = 3000
HOME = "/opt/d2c"
BENTO = "/home/bentoml/bento"
SBOM = f"{HOME}/sbom.cdx.json"
ENVIRONMENT = {
    "PYTHONPATH": f"{HOME}/site",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",  # noqa: S108 - inside the container
    "BENTOML_HOME": "/tmp/bentoml",  # noqa: S108 - inside the container
    "BENTOML_PORT": str(PORT),
    "BENTOML_DO_NOT_TRACK": "True",
    "D2C_SERVICE_MODE": "production",
    "D2C_SERVICE_STATE": "/state",
    "D2C_SERVICE_KEYS": "/keys/keys.json",
}
READY = (
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['BENTOML_PORT'] + '/readyz', timeout=2)"
)
SERVE = ("python3", "-m", "bentoml", "serve", BENTO)
# LightGBM's wheel takes the system's OpenMP.
SYSTEM = {"lightgbm": ("libgomp.so.1", "libgomp1")}
LIBRARY = (
    "RUN /sbin/ldconfig -p | grep -q {library} || "
    "{{ apt-get update -qq && apt-get install -y -qq --no-install-recommends {package} && rm -rf /var/lib/apt/lists/*; }}"
)


def labels(version: Version, bento: str, base: str, created: str) -> dict[str, str]:
    """Return the labels of the image, OCI annotations where they exist."""
    return {
        "org.opencontainers.image.title": version.model,
        "org.opencontainers.image.version": f"v{version.version}",
        "org.opencontainers.image.description": f"{version.model} version {version.version} behind HTTP",
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.base.name": base,
        "d2c.model": version.model,
        "d2c.version": str(version.version),
        "d2c.contract": version.schema.version,
        "d2c.bento": bento,
        "d2c.sha256": version.sha256,
    }


def containerfile(version: Version, bento: str, base: str, created: str, python: str, pins: str) -> str:
    """Return the Containerfile; the context has site/, bento/, prepare.py, pins.txt and sbom.cdx.json."""
    names = {line.partition("==")[0] for line in pins.split()}
    libraries = [
        LIBRARY.format(library=lib, package=package) for name, (lib, package) in SYSTEM.items() if name in names
    ]
    lines = [
        f"FROM {base}",
        "USER 0:0",
        "ENV " + " ".join(f"{name}={json.dumps(value)}" for name, value in ENVIRONMENT.items()),
        f"COPY prepare.py {HOME}/",
        _prepare_script("base", python, *FORBIDDEN),
        *libraries,
        f"COPY site/ {HOME}/site/",
        _prepare_script("install", python),
        f"COPY pins.txt sbom.cdx.json {HOME}/",
        f"COPY bento/ {BENTO}/",
        _prepare_script("check", python, *FORBIDDEN),
        "LABEL "
        + " ".join(f"{name}={json.dumps(text)}" for name, text in labels(version, bento, base, created).items()),
        f"EXPOSE {PORT}",
        f"USER {USER}:{USER}",
        f"WORKDIR {BENTO}",
        'VOLUME ["/state", "/tmp"]',
        f"HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD {json.dumps(['python3', '-S', '-c', READY])}",
        f"ENTRYPOINT {json.dumps(SERVE)}",
        "CMD []",
    ]
    return "\n".join(lines) + "\n"


def _prepare_script(step: str, python: str, *arguments: str) -> str:
    return f"RUN {json.dumps(['python3', f'{HOME}/prepare.py', step, python, str(USER), *arguments])}"
