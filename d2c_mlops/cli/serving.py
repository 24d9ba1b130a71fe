"""Commands about services: package, serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, settings, show

if TYPE_CHECKING:
    from d2c_mlops.registry.versions import Version


beside_option = click.option(
    "--with-challenger", "wanted", is_flag=False, flag_value="alias", metavar="[VERSION]",
    help="A version to load beside it, the registry's alias `challenger` without a number; when not given that of the "
    "rollout that is going, else the newest that one may begin with.",
)  # fmt: skip


@example(
    "d2c package demand",
    "d2c package demand --version 3",
    "d2c package demand --with-challenger 4",
    "d2c package demand --containerize --tag registry.example/demand:v3",
    "d2c package demand --containerize --base-image localhost/python:3.11 --opt network=host",
)
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; the champion when not given.")
@click.option("--containerize", is_flag=True, help="Build an image of the Bento as well.")
@click.option(
    "--backend", type=click.Choice(["docker", "podman", "buildah"]), help="The builder; found when not given."
)
@click.option("--tag", help="Name of the image; MODEL:vVERSION when not given.")
@click.option("--base-image", "base", help="Image to start from; [d2c] base_image, else Python's slim one.")
@click.option(
    "--opt", "options", multiple=True, metavar="NAME=VALUE", help="Further option of the builder; repeatable."
)
@beside_option
@json_option
def package(
    model: str, number: int | None, containerize: bool, backend: str | None, tag: str | None, base: str | None,
    options: tuple[str, ...], wanted: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Build the Bento of MODEL's champion: offline, pinned, only what the service needs; a challenger beside it.

    With --containerize an image of it too, by docker, podman or buildah. It runs as user 1034, needs no writable root
    (volumes: /state for the prediction log, /tmp), reads API keys from /keys/keys.json, listens on 3000 with /livez and
    /readyz, and holds a bill of materials (CycloneDX), which is written beside the Bento as well. An image in which nbdev,
    papermill, mlflow or JupyterLab can be imported, or a pin does not hold, is refused.
    """
    from d2c_mlops.serving.package.bento import package as build

    if not containerize and (backend or tag or base or options):
        raise click.UsageError("--backend, --tag, --base-image and --opt go with --containerize")
    held, version, challenger = settings(), _version(model, number), _beside(model, number, wanted)
    if not containerize:
        made = build(version, held, challenger)
        if as_json:
            return show(made.to_dict())
        click.echo(f"{made.tag} {'built' if made.made else 'is there already'}, {here(made.folder)}")
        click.echo(f"files: {made.sha256}")
        return None
    from d2c_mlops.serving.package.container import containerize as pack
    from d2c_mlops.serving.package.container import find_builder

    find_builder(backend or "")  # before the Bento is built: what is missing is said at once
    made = build(version, held, challenger)
    said = (lambda text: click.echo(text, err=True)) if not as_json else (lambda text: None)
    image = pack(made, version, held, tag=tag or "", backend=backend or "", base=base or "", options=options, said=said)
    if as_json:
        return show(made.to_dict() | {"image": image.to_dict()})
    click.echo(f"{image.tag} ({image.size / 1e6:,.0f} MB) of {made.tag}, {image.packages} pinned packages")
    click.echo(f"files: {made.sha256}")
    click.echo(f"bill of materials: {here(made.folder / 'sbom.cdx.json')}")
    click.echo(f"next: d2c deploy {model} --to kubernetes --image {image.tag}")
    return None


@example("d2c serve demand", "d2c serve demand --port 8080", "d2c serve demand --with-challenger 4")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; the champion when not given.")
@click.option("--port", type=int, help="Port to listen on; service_port of the model's settings when not given.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--workers", type=click.IntRange(1), help="Processes that answer; [service] workers when not given.")
@beside_option
@json_option
def serve(
    model: str, number: int | None, port: int | None, host: str, workers: int | None, wanted: str | None, as_json: bool
) -> None:
    """Serve MODEL's champion over HTTP until Ctrl-C, with the version beside it that a rollout is about or may begin with."""
    import signal
    import threading

    from d2c_mlops.serving.local.server import check_port, serving
    from d2c_mlops.serving.package.bento import package as build

    held = settings()
    port = port if port is not None else held.model(model).service_port
    check_port(host, port)
    version = _version(model, number)
    challenger = _beside(model, number, wanted)
    bento = build(version, held, challenger)
    stopped = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stopped.set())
    with serving(bento, held, port=port, host=host, workers=workers) as server:
        if as_json:
            show({"url": server.url, "tag": bento.tag, "pid": server.process.pid, "log": str(server.log)})
        else:
            click.echo(f"{model} version {version.version} answers at {server.url} (log: {here(server.log)})")
            if challenger is not None:
                click.echo(
                    f"version {challenger.version} is packaged beside it; `d2c rollout {model}` says whether it answers"
                )
            click.echo("Ctrl-C stops it")
        while not stopped.wait(0.5) and server.process.poll() is None:
            pass
        ended = server.process.poll()
    if ended is not None and not stopped.is_set():
        from d2c_mlops.errors import D2CError

        raise D2CError(f"the service ended by itself with status {ended}", where=str(server.log), next="read the log")


def _version(model: str, number: int | None) -> Version:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live
    from d2c_mlops.registry.versions import find_version

    ledger = Ledger.of(settings())
    return find_version(ledger, model, number) if number is not None else live(ledger, model)


def _beside(model: str, number: int | None, wanted: str | None) -> Version | None:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.serving.rollout.commands import challenger

    held = settings()
    return challenger(Ledger.of(held), model, held, wanted) if number is None or wanted is not None else None
