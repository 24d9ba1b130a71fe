"""Commands for deployment: loadtest, deploy."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show
from d2c_mlops.errors import UsageError
from d2c_mlops.settings import Settings


@example("d2c loadtest demand", "d2c loadtest demand --seconds 30 --connections 32 --json")
@section("Live")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=10.0, show_default=True, help="Duration of the test."
)
@click.option(
    "--connections", type=click.IntRange(1, 1000), default=8, show_default=True, help="Concurrent connections."
)
@click.option(
    "--path",
    type=click.Choice(["/predict", "/explain"]),
    help="The endpoint; default: /explain if the model has reasons, else /predict.",
)
@json_option
def loadtest(model: str, number: int | None, seconds: float, connections: int, path: str | None, as_json: bool) -> None:
    """Measure the performance of MODEL's service.

    The figures are CPU time per request, latency and peak memory. The service runs on this machine, without API keys and with a separate log. The test sends one record per request, then the
    largest request that the service accepts. The figures are stored with the Bento; `d2c deploy` derives limits from them.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live_version
    from d2c_mlops.registry.versions import find_version
    from d2c_mlops.serving.local.loadtest import FILE
    from d2c_mlops.serving.local.loadtest import loadtest as measure
    from d2c_mlops.serving.package.bento import package_model_version

    config = settings()
    ledger = Ledger.of(config)
    version = find_version(ledger, model, number) if number is not None else live_version(ledger, model)
    bento = package_model_version(version, config)
    log = (lambda text: None) if as_json else (lambda text: click.echo(text, err=True))
    load = measure(bento, version, config, seconds=seconds, connections=connections, path=path or "", log=log)
    if as_json:
        return show(load.to_dict())
    click.echo(
        f"{load.path} of {load.bento}: {load.rate:,.0f} requests/s, p50 {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms"
    )
    click.echo(f"{load.cpu_ms:.3f} ms CPU per request, {load.cores:g} CPUs busy")
    click.echo(
        f"peak memory {load.service_mb:,.0f} MB, its worker {load.worker_mb:,.0f} MB ({load.records:,} records at once)"
    )
    click.echo(f"written to {here(bento.folder / FILE)}; next: d2c deploy {model} --to kubernetes")
    return None


@example(
    "d2c deploy demand --to kubernetes --image registry.example/demand:v3",
    "d2c deploy demand --to kubernetes --rate 200",
    "d2c deploy demand --to compose --image demand:v3 --memory 700 --cpu 2",
    "d2c deploy demand --to github-actions --image ghcr.io/OWNER/demand",
)
@section("Live")
@main.command()
@click.argument("model")
@click.option(
    "--to",
    "target",
    type=click.Choice(["compose", "github-actions", "kubernetes"]),
    required=True,
    help="The platform.",
)
@click.option("--image", help="The image of the model's service; default: MODEL:vVERSION.")
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files; default: deploy/TARGET/MODEL.")
@click.option("--cpu", type=float, help="CPUs of a replica; default: from the load test, else 1.")
@click.option("--memory", type=int, metavar="MB", help="Memory of a replica; default: from the load test, else 512.")
@click.option(
    "--rate", type=float, metavar="N", help="Requests per second at peak time; determines the number of replicas."
)
@click.option(
    "--replicas", type=(int, int), metavar="MIN MAX", help="Minimum and maximum number of replicas; default: 2 to 6."
)
@click.option(
    "--files", "files", metavar="SHA256", help="Digest of the image's files, as `d2c package` prints it; default: the digest of the "
    "image built on this machine. The service refuses to start with other files.",
)  # fmt: skip
@click.option(
    "--latency",
    type=float,
    default=500.0,
    show_default=True,
    metavar="MS",
    help="p99 latency above which an alert fires.",
)
@json_option
def deploy(
    model: str, target: str, image: str | None, number: int | None, out: Path | None, cpu: float | None,
    memory: int | None, rate: float | None, replicas: tuple[int, int] | None, files: str | None, latency: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Write deployment files for MODEL's image.

    They contain probes, resource limits, a non-root user, network policies, alert rules and secret references. Resource limits come from `d2c loadtest`; if there was no load test, the output and the files say so.
    github-actions writes a workflow from push to production: tests, Bento, image, staging, contract check, rollout.
    """
    from d2c_mlops.decisions.server import decision_service_plan
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live_version
    from d2c_mlops.registry.versions import find_version
    from d2c_mlops.serving.deploy import DeployPlan, size_of, targets
    from d2c_mlops.serving.deploy import deploy as write
    from d2c_mlops.serving.deploy.project import project_parts, service_variables
    from d2c_mlops.serving.local.loadtest import measured_load
    from d2c_mlops.serving.package.bento import image_files_digest
    from d2c_mlops.serving.state_paths import keys_file

    config = settings()
    ledger = Ledger.of(config)
    version = find_version(ledger, model, number) if number is not None else live_version(ledger, model)
    load = measured_load(version, config)
    size, sized = size_of(
        load, cpu=cpu, memory_mb=memory, replicas=replicas, rate=rate, request_ms=latency, alone=target == "compose"
    )
    folder = (out or config.root / "deploy" / target / model).resolve()
    image = image or f"{model}:v{version.version}"
    if files and not re.fullmatch("[0-9a-f]{64}", files):
        raise UsageError(
            f"{files!r} is not a SHA-256 digest", where="--files", next="use the digest that `d2c package` prints"
        )
    files = files or image_files_digest(version, image, config)
    plan = DeployPlan(
        model, version.version, image, size, files=files, sized=sized, project=project_parts(config),
        context=os.path.relpath(config.root, folder), place=os.path.relpath(folder, config.root), deciding=decision_service_plan(config),
        environment=service_variables(config), secrets=_secret_names(config), heartbeats=_heartbeats(config), keys=os.path.relpath(keys_file(config), config.root),
    )  # fmt: skip
    paths = write(plan, target, folder)
    step = targets()[target].next.format(folder=here(folder))
    if as_json:
        load_json = load.to_dict() if load else None
        return show({"files": [str(path) for path in paths], "next": step, "size": asdict(size), "load": load_json})
    for path in paths:
        click.echo(here(path))
    click.echo(sized)
    if not files and target != "github-actions":
        click.echo(
            f"{image} was not built on this machine, so the service cannot verify its files; pass their digest with --files"
        )
    click.echo(f"next: read the head of {here(paths[0])}, then {step}")
    return None


def _heartbeats(config: Settings) -> tuple[str, ...]:
    """Return the parts of the project that write heartbeats on a schedule."""
    monitored = ("monitor",) if any(job.run == "monitor" for job in config.jobs.values()) else ()
    return ("scheduler", *monitored) if config.jobs else ()


def _secret_names(config: Settings) -> tuple[str, ...]:
    """Return the names of the secrets that jobs and models refer to."""
    from d2c_mlops.runs.secrets.secrets import secret_names_in
    from d2c_mlops.serving.deploy.project import parameter_values

    return tuple(
        sorted(
            secret_names_in([*parameter_values(config), *(url for job in config.jobs.values() for url in job.notify)])
        )
    )
