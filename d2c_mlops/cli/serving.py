"""Commands for services: package, serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show

if TYPE_CHECKING:
    from d2c_mlops.registry.versions import Version


beside_option = click.option(
    "--with-challenger", "with_challenger", is_flag=False, flag_value="alias", metavar="[VERSION]",
    help="A challenger to load together with it; without a number, the version with the registry alias `challenger`. Default: the "
    "challenger of the current rollout, else the newest version that a rollout may start with.",
)  # fmt: skip


@example(
    "d2c package demand",
    "d2c package demand --version 3",
    "d2c package demand --with-challenger 4",
    "d2c package demand --containerize --tag registry.example/demand:v3",
    "d2c package demand --containerize --base-image localhost/python:3.11 --opt network=host",
)
@section("Live")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@click.option("--containerize", is_flag=True, help="Build an image of the Bento as well.")
@click.option("--backend", type=click.Choice(["docker", "podman", "buildah"]), help="The builder; default: detected.")
@click.option("--tag", help="Name of the image; default: MODEL:vVERSION.")
@click.option("--base-image", "base", help="Base image; default: [d2c] base_image, else Python's slim image.")
@click.option(
    "--opt", "options", multiple=True, metavar="NAME=VALUE", help="Further option of the builder; repeatable."
)
@beside_option
@json_option
def package(
    model: str, number: int | None, containerize: bool, backend: str | None, tag: str | None, base: str | None,
    options: tuple[str, ...], with_challenger: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Build the Bento of MODEL's champion.

    The build works offline and contains only the packages that the service needs, with pinned versions. With --containerize, also build an image with docker, podman or buildah. The container runs as user 1034 with a read-only root
    (volumes: /state for the prediction log, /tmp), reads API keys from /keys/keys.json and listens on port 3000 with /livez and
    /readyz. The image contains a bill of materials (CycloneDX), which is also written to the Bento's folder. The build fails if nbdev,
    papermill, mlflow or JupyterLab can be imported in the image, or if a package differs from its pin.
    """
    from d2c_mlops.serving.package.bento import package_model_version as build

    if not containerize and (backend or tag or base or options):
        raise click.UsageError("--backend, --tag, --base-image and --opt require --containerize")
    config, version, challenger = (
        settings(),
        _version_to_serve(model, number),
        _challenger_version(model, number, with_challenger),
    )
    if not containerize:
        bento = build(version, config, challenger)
        if as_json:
            return show(bento.to_dict())
        click.echo(f"{bento.tag} {'built' if bento.made else 'already exists'}, {here(bento.folder)}")
        click.echo(f"files: {bento.sha256}")
        return None
    from d2c_mlops.serving.package.container import containerize as pack
    from d2c_mlops.serving.package.container import find_builder

    find_builder(backend or "")  # before the Bento is built, so that a missing builder is reported at once
    bento = build(version, config, challenger)
    log = (lambda text: click.echo(text, err=True)) if not as_json else (lambda text: None)
    image = pack(
        bento, version, config, tag=tag or "", backend=backend or "", base=base or "", options=options, log=log
    )
    if as_json:
        return show(bento.to_dict() | {"image": image.to_dict()})
    click.echo(f"{image.tag} ({image.size / 1e6:,.0f} MB) of {bento.tag}, {image.packages} pinned packages")
    click.echo(f"files: {bento.sha256}")
    click.echo(f"bill of materials: {here(bento.folder / 'sbom.cdx.json')}")
    click.echo(f"next: d2c deploy {model} --to kubernetes --image {image.tag}")
    return None


@example("d2c serve demand", "d2c serve demand --port 8080", "d2c serve demand --with-challenger 4")
@section("Live")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@click.option("--port", type=int, help="Port to listen on; default: service_port of the model's settings.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes; default: [service] workers.")
@beside_option
@json_option
def serve(
    model: str,
    number: int | None,
    port: int | None,
    host: str,
    workers: int | None,
    with_challenger: str | None,
    as_json: bool,
) -> None:
    """Serve MODEL's champion over HTTP until Ctrl-C.

    The challenger of a current or next rollout is loaded too.
    """
    import signal
    import threading

    from d2c_mlops.serving.local.server import check_port, serve_bento
    from d2c_mlops.serving.package.bento import package_model_version as build

    config = settings()
    port = port if port is not None else config.model(model).service_port
    check_port(host, port)
    version = _version_to_serve(model, number)
    challenger = _challenger_version(model, number, with_challenger)
    bento = build(version, config, challenger)
    stopped = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stopped.set())
    with serve_bento(bento, config, port=port, host=host, workers=workers) as server:
        if as_json:
            show({"url": server.url, "tag": bento.tag, "pid": server.process.pid, "log": str(server.log)})
        else:
            click.echo(f"{model} version {version.version} is served at {server.url} (log: {here(server.log)})")
            if challenger is not None:
                click.echo(
                    f"version {challenger.version} is loaded as the challenger; `d2c rollout {model}` shows the rollout"
                )
            click.echo("Ctrl-C stops it")
        while not stopped.wait(0.5) and server.process.poll() is None:
            pass
        ended = server.process.poll()
    if ended is not None and not stopped.is_set():
        from d2c_mlops.errors import D2CError

        raise D2CError(
            f"the service exited unexpectedly with status {ended}", where=str(server.log), next="read the log"
        )


def _version_to_serve(model: str, number: int | None) -> Version:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live_version
    from d2c_mlops.registry.versions import find_version

    ledger = Ledger.of(settings())
    return find_version(ledger, model, number) if number is not None else live_version(ledger, model)


def _challenger_version(model: str, number: int | None, with_challenger: str | None) -> Version | None:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.serving.rollout.rollout_commands import challenger_to_package

    config = settings()
    return (
        challenger_to_package(Ledger.of(config), model, config, with_challenger)
        if number is None or with_challenger is not None
        else None
    )
