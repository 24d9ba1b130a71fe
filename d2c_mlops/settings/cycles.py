"""The jobs that the `cycle` of a model stands for: from new data to predictions and the check of the live version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from d2c_mlops.errors import Failure, did_you_mean

RUNBOOKS = Path(__file__).parents[1] / "runbooks"
# The steps in their order, each a runbook, with its limits. A job waits for the success of what its result rests on (`after`), and for
# the end of what comes before it (`after_end`): the champion predicts also if this week's training failed.
STEPS: Mapping[str, Mapping[str, str]] = {
    "source": {"timeout": "3600", "retries": "3", "backoff": "300"},
    "train": {"timeout": "14400", "retries": "1", "backoff": "600", "after": "source"},
    "promote": {"timeout": "1800", "retries": "2", "backoff": "60", "after": "train"},
    "score": {"timeout": "7200", "retries": "3", "backoff": "300", "after": "source", "after_end": "promote"},
    "collect": {"timeout": "1800", "retries": "3", "backoff": "60", "after_end": "score"},
    "monitor": {"timeout": "3600", "retries": "2", "backoff": "300", "after_end": "collect"},
    "retrain": {"timeout": "21600", "retries": "3", "backoff": "300", "after_end": "monitor"},
    "package": {"timeout": "3600", "retries": "2", "backoff": "60", "after_end": "retrain"},
}
ON_REQUEST = ("package",)  # steps that only `cycle_steps` adds: not every model is served
Section = dict[str, str]


def cycle_sections(sections: Mapping[str, Mapping[str, str]], failures: list[Failure]) -> dict[str, Section]:
    """Return the sections of the file, with those of the jobs of each [model:NAME] cycle: schedule:NAME.STEP.

    What a section [schedule:NAME.STEP] says replaces what the cycle says. Wrong steps are added to the failures.
    """
    expanded = {name: dict(keys) for name, keys in sections.items()}
    for section, keys in sections.items():
        kind, _, model = section.partition(":")
        if kind != "model" or not keys.get("cycle", "").strip():
            continue
        for name, options in _jobs_of_cycle(model, keys, sections, failures).items():
            expanded[name] = options | expanded.pop(name, {})  # in the order of the steps
    return expanded


def _jobs_of_cycle(
    model: str, keys: Mapping[str, str], sections: Mapping[str, Mapping[str, str]], failures: list[Failure]
) -> dict[str, Section]:
    data = keys.get("data", "").strip()
    dataset = sections.get(f"data:{data}", {})
    source_jobs = [
        name.removeprefix("schedule:")
        for name, options in sections.items()
        if name.startswith("schedule:") and options.get("run") == "source" and options.get("params.name") == data
    ]
    parameters = {step: {"params.model": model} for step in STEPS} | {"collect": {}}
    parameters["source"] = {
        f"params.{name}": dataset[name] for name in ("source", "layout", "column") if dataset.get(name, "").strip()
    } | {"params.name": data}
    if keys.get("sink", "").strip():
        parameters["score"]["params.sink"] = keys["sink"]
    is_possible = {step: (RUNBOOKS / f"{step}.ipynb").exists() for step in STEPS}
    is_possible["source"] = bool(data and dataset.get("source", "").strip()) and not source_jobs
    chosen = keys.get("cycle_steps", "").replace(",", " ").split()
    for step in chosen:
        if step not in STEPS:
            failures.append(
                Failure(
                    f"{step!r} is not a step of a cycle{did_you_mean(step, STEPS)}; known: {', '.join(STEPS)}",
                    f"[model:{model}] cycle_steps",
                )
            )
        elif step == "source" and not is_possible[step] and not source_jobs:
            failures.append(
                Failure(
                    "the step source needs [data:NAME] source and [model:NAME] data", f"[model:{model}] cycle_steps"
                )
            )
    usual = _usual_steps(keys.get("retrain", ""))
    steps = [step for step in STEPS if is_possible[step] and step in (chosen or usual)]
    zone = dataset.get("zone", "").strip() or sections.get("d2c", {}).get("zone", "").strip() or "UTC"
    jobs: dict[str, Section] = {}
    for step in steps:
        limits = {name: value for name, value in STEPS[step].items() if not name.startswith("after")}
        jobs[f"schedule:{model}.{step}"] = {
            "run": step,
            "at": keys["cycle"].strip(),
            "zone": zone,
            **limits,
            **parameters[step],
            **_dependencies(model, step, steps, source_jobs),
        }
    return jobs


def _usual_steps(retrain: str) -> list[str]:
    """Return the steps without `cycle_steps`: with `retrain`, that step decides on training and release, else each slot trains."""
    word = retrain.strip().lower()
    left_out = {"": ("retrain",), "never": ("train", "retrain")}.get(word, ("train", "promote"))
    return [step for step in STEPS if step not in (*left_out, *ON_REQUEST)]


def _dependencies(model: str, step: str, steps: list[str], source_jobs: list[str]) -> Section:
    """Return the jobs that a step waits for; where a step before it is left out, the one before that."""
    options: Section = {}
    for option in ("after", "after_end"):
        before = STEPS[step].get(option, "")
        while before and before not in steps and not (before == "source" and source_jobs):
            before = STEPS[before].get(option, "") or STEPS[before].get("after", "")
        names = source_jobs if before == "source" and source_jobs else [f"{model}.{before}"] if before else []
        if names and names != options.get("after", "").split():
            options[option] = " ".join(names)
    return options
