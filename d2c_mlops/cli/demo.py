"""Command that runs the complete demo: demo."""

from __future__ import annotations

from pathlib import Path

import click

from . import example, here, json_option, main, section, settings, show
from .runs import Progress

ANSWER = ("forecast", "lower_80", "upper_80", "basis")  # what is shown of a prediction; the report has all of it


@example("d2c demo")
@section("Start")
@main.command()
@json_option
def demo(as_json: bool) -> None:
    """Run the complete workflow on sample data.

    Ingest 1.5 million real sales lines, train, promote, package and serve a model, and request a prediction.
    Then check, convert, verify and package a notebook from 2019, and request a prediction from it over HTTP.

    Files are written only in the store (`d2c settings` prints its path). It is safe to run the demo again.
    """
    from ..demo.demo import demo as walk

    bar = Progress(quiet=as_json)

    def say(step: str, result: str, seconds: float) -> None:
        if not as_json:
            bar.clear()
            click.echo(f"{click.style(f'{step:>12}', bold=True)}  {result}  ({seconds:.1f} s)")

    config = settings()
    with bar as progress:
        story = walk(config, say, progress)
    if as_json:
        return show({"steps": story.steps, **story.facts})
    click.echo("\nRequest:  " + _one_line(story.facts["asked"]))
    click.echo("Response: " + _one_line({name: story.facts["answered"][name] for name in ANSWER}))
    click.echo(f"\nReport           {here(Path(story.facts['report']))}")
    click.echo(f"Training run     {here(Path(story.facts['run']['html']))}")
    click.echo(f"Bento            {here(Path(story.facts['bento']))}")
    if old := story.facts.get("old_notebook"):
        click.echo(f"Old notebook     {here(Path(old['notebook']))}")
        click.echo(f"Its conversion   {here(Path(old['report']))}")
    click.echo(f"Everything else  {here(config.store)}")
    click.echo(
        '\nNext:\n  d2c models\n  d2c serve demand\n  d2c run train -p model=demand -p \'params={"freq": "W", "contract_version": "2.0.0"}\''
    )
    return None


def _one_line(values: dict[str, object]) -> str:
    return ", ".join(f"{k} {round(v, 1) if isinstance(v, float) else v}" for k, v in values.items() if v is not None)
