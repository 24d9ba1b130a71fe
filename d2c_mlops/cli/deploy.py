"""Commands about platforms: loadtest, deploy."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, settings, show
from d2c_mlops.errors import UsageError
from d2c_mlops.settings import Settings


@example("d2c loadtest demand", "d2c loadtest demand --seconds 30 --connections 32 --json")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; the champion when not given.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=10.0, show_default=True, help="How long it is asked."
)
@click.option("--connections", type=click.IntRange(1, 1000), default=8, show_default=True, help="Callers at a time.")
@click.option(
    "--path", type=click.Choice(["/predict", "/explain"]), help="What is asked; /explain where the model explains."
)
@json_option
def loadtest(model: str, number: int | None, seconds: float, connections: int, path: str | None, as_json: bool) -> None:
    """Measure what MODEL's service takes: processor time a request, latency and peak memory.

    It is served here, without keys and with a log of its own, asked one record at a time, then for as many at once as it
    takes. The figures are written beside the Bento; `d2c deploy` takes limits from them.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live
    from d2c_mlops.registry.versions import find_version
    from d2c_mlops.serving.local.loadtest import FILE
    from d2c_mlops.serving.local.loadtest import loadtest as measure
    from d2c_mlops.serving.package.bento import package

    held = settings()
    ledger = Ledger.of(held)
    version = find_version(ledger, model, number) if number is not None else live(ledger, model)
    bento = package(version, held)
    said = (lambda text: None) if as_json else (lambda text: click.echo(text, err=True))
    load = measure(bento, version, held, seconds=seconds, connections=connections, path=path or "", said=said)
    if as_json:
        return show(load.to_dict())
    click.echo(
        f"{load.path} of {load.bento}: {load.rate:,.0f} requests/s, p50 {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms"
    )
    click.echo(f"{load.cpu_ms:.3f} ms of processor a request, {load.cores:g} processors busy")
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
@main.command()
@click.argument("model")
@click.option(
    "--to",
    "target",
    type=click.Choice(["compose", "github-actions", "kubernetes"]),
    required=True,
    help="The platform.",
)
@click.option("--image", help="The image of the model's service; MODEL:vVERSION when not given.")
@click.option("--version", "number", type=int, help="The version; the champion when not given.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the files; deploy/TARGET/MODEL when not given."
)
@click.option("--cpu", type=float, help="Processors of a replica; from the load test when not given, else 1.")
@click.option(
    "--memory", type=int, metavar="MB", help="Memory of a replica; from the load test when not given, else 512."
)
@click.option("--rate", type=float, metavar="N", help="Requests a second at the busiest time; says how many replicas.")
@click.option("--replicas", type=(int, int), metavar="LEAST MOST", help="How many there are; 2 to 6 when not given.")
@click.option(
    "--files", "files", metavar="SHA256", help="Digest of the image's files, as `d2c package` prints it; found where the image was "
    "built on this machine. The service refuses to start with other files.",
)  # fmt: skip
@click.option(
    "--latency", type=float, default=500.0, show_default=True, metavar="MS", help="p99 above which somebody is woken."
)
@json_option
def deploy(
    model: str, target: str, image: str | None, number: int | None, out: Path | None, cpu: float | None,
    memory: int | None, rate: float | None, replicas: tuple[int, int] | None, files: str | None, latency: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Write what runs MODEL's image: probes, limits, no root, policies, alert rules, secrets by reference.

    Limits are those that `d2c loadtest` measured; where nothing was measured, the command and the files say so.
    github-actions writes the workflow from a push to production: tests, Bento, image, staging, contract, rollout.
    """
    from d2c_mlops.decisions.server import deployed
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live
    from d2c_mlops.registry.versions import find_version
    from d2c_mlops.serving.deploy import DeployPlan, size_of, targets
    from d2c_mlops.serving.deploy import deploy as write
    from d2c_mlops.serving.deploy.project import given, parts
    from d2c_mlops.serving.local.loadtest import measured
    from d2c_mlops.serving.package.bento import image_files
    from d2c_mlops.serving.paths import keys_file

    held = settings()
    ledger = Ledger.of(held)
    version = find_version(ledger, model, number) if number is not None else live(ledger, model)
    load = measured(version, held)
    size, sized = size_of(
        load, cpu=cpu, memory_mb=memory, replicas=replicas, rate=rate, request_ms=latency, alone=target == "compose"
    )
    folder = (out or held.root / "deploy" / target / model).resolve()
    image = image or f"{model}:v{version.version}"
    if files and not re.fullmatch("[0-9a-f]{64}", files):
        raise UsageError(f"{files!r} is no SHA-256", where="--files", next="give the one that `d2c package` prints")
    files = files or image_files(version, image, held)
    plan = DeployPlan(
        model, version.version, image, size, files=files, sized=sized, project=parts(held),
        context=os.path.relpath(held.root, folder), place=os.path.relpath(folder, held.root), deciding=deployed(held),
        environment=given(held), secrets=_secrets(held), keys=os.path.relpath(keys_file(held), held.root),
    )  # fmt: skip
    made = write(plan, target, folder)
    step = targets()[target].next.format(folder=here(folder))
    if as_json:
        told = load.to_dict() if load else None
        return show({"files": [str(path) for path in made], "next": step, "size": asdict(size), "load": told})
    for path in made:
        click.echo(here(path))
    click.echo(sized)
    if not files and target != "github-actions":
        click.echo(
            f"{image} was not built on this machine: the service cannot verify its files; --files gives their digest"
        )
    click.echo(f"next: read the head of {here(made[0])}, then {step}")
    return None


def _secrets(held: Settings) -> tuple[str, ...]:
    """Return the names of the secrets that jobs and models refer to."""
    from d2c_mlops.runs.secrets.secrets import references
    from d2c_mlops.serving.deploy.project import params

    return tuple(sorted(references([*params(held), *(url for job in held.jobs.values() for url in job.notify)])))
