"""Commands about services: package, serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import example, here, json_option, main, settings, show

if TYPE_CHECKING:
    from ..registry.versions import Version


beside_option = click.option(
    "--with-challenger", "wanted", is_flag=False, flag_value="alias", metavar="[VERSION]",
    help="A version to load beside it, the registry's alias `challenger` without a number; that of the rollout that is "
    "going when not given.",
)  # fmt: skip


@example("d2c package demand", "d2c package demand --version 3", "d2c package demand --with-challenger 4")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; the champion when not given.")
@beside_option
@json_option
def package(model: str, number: int | None, wanted: str | None, as_json: bool) -> None:
    """Build the Bento of MODEL's champion: offline, pinned, only what the service needs."""
    from ..serving.bento import package as build

    made = build(_version(model, number), settings(), _beside(model, number, wanted))
    if as_json:
        return show(made.to_dict())
    click.echo(f"{made.tag} {'built' if made.made else 'is there already'}, {here(made.folder)}")
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
    """Serve MODEL's champion over HTTP until Ctrl-C, with the challenger of a rollout beside it."""
    import signal
    import threading

    from ..serving.bento import package as build
    from ..serving.server import check_port, serving

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
                click.echo(f"version {challenger.version} is loaded beside it; `d2c rollout {model}` says what it does")
            click.echo("Ctrl-C stops it")
        while not stopped.wait(0.5) and server.process.poll() is None:
            pass
        ended = server.process.poll()
    if ended is not None and not stopped.is_set():
        from ..errors import D2CError

        raise D2CError(f"the service ended by itself with status {ended}", where=str(server.log), next="read the log")


def _version(model: str, number: int | None) -> Version:
    from ..ledger.store import Ledger
    from ..registry.promotions import live
    from ..registry.versions import find_version

    ledger = Ledger.of(settings())
    return find_version(ledger, model, number) if number is not None else live(ledger, model)


def _beside(model: str, number: int | None, wanted: str | None) -> Version | None:
    from ..ledger.store import Ledger
    from ..serving.rollouts import challenger

    held = settings()
    return challenger(Ledger.of(held), model, held, wanted) if number is None or wanted is not None else None
