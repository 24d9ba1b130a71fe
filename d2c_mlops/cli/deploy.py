"""Command that writes what a platform needs: deploy."""

from __future__ import annotations

from pathlib import Path

import click

from . import example, here, json_option, main, settings, show


@example(
    "d2c deploy demand --to kubernetes --image registry.example/demand:v3",
    "d2c deploy demand --to compose --image demand:v3 --memory 700 --cpu 2",
)
@main.command()
@click.argument("model")
@click.option("--to", "target", type=click.Choice(["compose", "kubernetes"]), required=True, help="The platform.")
@click.option("--image", help="The image of the model's service; MODEL:vVERSION when not given.")
@click.option("--version", "number", type=int, help="The version; the champion when not given.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the files; deploy/TARGET/MODEL when not given."
)
@click.option("--cpu", type=float, default=1.0, show_default=True, help="Processors of a replica.")
@click.option("--memory", type=int, default=512, show_default=True, metavar="MB", help="Resident memory of a replica.")
@click.option(
    "--replicas", type=(int, int), default=(2, 6), show_default=True, metavar="LEAST MOST", help="How many there are."
)
@click.option(
    "--latency", type=float, default=500.0, show_default=True, metavar="MS", help="p99 above which somebody is woken."
)
@json_option
def deploy(
    model: str, target: str, image: str | None, number: int | None, out: Path | None, cpu: float, memory: int,
    replicas: tuple[int, int], latency: float, as_json: bool,
) -> None:  # fmt: skip
    """Write the manifests that run MODEL's image: probes, limits, no root, policies, alert rules, secrets by reference."""
    from ..ledger.store import Ledger
    from ..registry.promotions import live
    from ..registry.versions import find_version
    from ..serving.deploy import Plan, Size, targets
    from ..serving.deploy import deploy as write

    held = settings()
    ledger = Ledger.of(held)
    version = find_version(ledger, model, number) if number is not None else live(ledger, model)
    size = Size(cpu, memory, replicas[0], replicas[1], latency)
    plan = Plan(model, version.version, image or f"{model}:v{version.version}", size)
    folder = out or held.root / "deploy" / target / model
    made = write(plan, target, folder)
    step = targets()[target].next.format(folder=here(folder.resolve()))
    if as_json:
        return show({"files": [str(path) for path in made], "next": step})
    for path in made:
        click.echo(here(path.resolve()))
    click.echo(f"next: read the head of {here(made[0].resolve())}, then {step}")
    return None
