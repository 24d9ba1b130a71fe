"""Settings that a deployment takes from the project, and the Containerfile of the project's image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from d2c_mlops.serving.deploy import REQUIREMENTS, DeployPlan, pip_arguments
from d2c_mlops.serving.package.container import BASE
from d2c_mlops.serving.package.container.containerfile import HOME, LIBRARY, SBOM, SYSTEM, USER
from d2c_mlops.settings import ServiceSettings, Settings

RECIPE = """# Written by `d2c deploy`: the image of your project, which runs the schedule and MLflow. Secrets are mounted, never copied.
ARG BASE={base}
FROM ${{BASE}}
USER 0:0
ENV PYTHONUNBUFFERED=1 HOME=/tmp PYTHONPATH=/project D2C_STORE=/store MLFLOW_DISABLE_TELEMETRY=true BENTOML_DO_NOT_TRACK=True
{library}
WORKDIR /project
{install}
{copies}
RUN mkdir -p {home} && python3 -m d2c_mlops.serving.package.container.sbom {sbom}
RUN mkdir /store /state && chown {user}:{user} /store /state
USER {user}:{user}
VOLUME ["/store", "/state", "/tmp"]
CMD ["d2c", "schedule", "run"]
"""
ALWAYS = (REQUIREMENTS, "wheels", "settings.ini", "nbs", "notebooks", "runbooks")
KINDS = (
    ".ini",
    ".json",
    ".py",
    ".sql",
    ".toml",
    ".yaml",
    ".yml",
)  # of files that parameters name; data files are not copied
OWN = ("mode", "state", "keys", "rollout", "log_secret", "drain_seconds")  # options that the platform's files set


def project_containerfile(plan: DeployPlan) -> str:
    """Return the Containerfile of the project's image; layers that change least come first."""
    first = [part for part in (REQUIREMENTS, "wheels") if part in plan.project]
    install = f"RUN python3 -m pip install --no-cache-dir {pip_arguments(plan)}"
    copied = [f"COPY {name} ./{name}" for name in plan.project]
    early = [line for line, name in zip(copied, plan.project, strict=True) if name in first]
    library = LIBRARY.format(library=SYSTEM["lightgbm"][0], package=SYSTEM["lightgbm"][1])
    return RECIPE.format(
        base=BASE,
        library=library,
        install="\n".join([*early, install]),
        copies="\n".join(line for line in copied if line not in early),
        user=USER,
        home=HOME,
        sbom=SBOM,
    )


def project_parts(settings: Settings) -> tuple[str, ...]:
    """Return the parts of the project's folder that the image contains: code, notebooks, files of KINDS that parameters name; no store, no secrets."""
    packages = (name.partition(".")[0] for name in settings.packages)
    runs = (_notebook_folder(job.run) for job in settings.jobs.values() if job.run.endswith(".ipynb"))
    named_files = (value for value in parameter_values(settings) if value.endswith(KINDS))
    part_names = dict.fromkeys(name for name in (*ALWAYS, *packages, *runs, *named_files) if _is_part(name, settings))
    return tuple(
        name for name in part_names if not any(str(above) in part_names for above in PurePosixPath(name).parents)
    )


def service_variables(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return the D2C_SERVICE_… variables for options of [service] that differ from the defaults."""
    service_settings, usual = settings.service, ServiceSettings().environment()
    names = {f"D2C_SERVICE_{name.upper()}" for name in OWN}
    changed_options = {
        name: text for name, text in service_settings.environment().items() if text != usual[name] and name not in names
    }
    drains = (
        {"D2C_SERVICE_DRAIN_SECONDS": f"{service_settings.drain_seconds:g}"} if service_settings.drain_seconds else {}
    )
    return tuple((changed_options | drains).items())


def parameter_values(settings: Settings) -> Iterator[str]:
    """Yield the parameters of all jobs and models."""
    for job in settings.jobs.values():
        yield from job.params.values()
    for model in settings.models.values():
        yield from model.params.values()


def _notebook_folder(notebook: str) -> str:
    """Return the folder of a notebook, which may import modules beside it; at the top of the project the notebook itself."""
    path = PurePosixPath(notebook)
    return notebook if len(path.parts) < 2 else path.parts[0]


def _is_part(name: str, settings: Settings) -> bool:
    path = (settings.root / name).resolve()
    excluded = [settings.store.resolve(), *([(settings.root / settings.secrets).resolve()] if settings.secrets else [])]
    inside = path != settings.root.resolve() and path.is_relative_to(settings.root.resolve())
    try:
        return bool(name) and inside and path.exists() and not any(path.is_relative_to(folder) for folder in excluded)
    except OSError:  # a parameter that cannot be a file name
        return False
