"""Write the charter of a converted notebook: known fields are filled in, the owner fills in the others."""

from __future__ import annotations

from dataclasses import fields

from d2c_mlops.models.core.charter import Charter


def charter_source(metric: str, baseline: str) -> str:
    """Return a charter with every question beside its field; `baseline` is the baseline of evaluate()."""
    lines = []
    for field in fields(Charter):
        question = field.metadata["question"]
        if field.name == "metric":
            lines.append(f"    metric={metric!r},  # metric of evaluate()")
            continue
        if field.name == "baseline":
            question = f"What is current practice? (evaluate() reports {baseline!r})"
        lines.append(f"    {field.name}={field.default!r},  # {question}")
    return "\n".join(["CHARTER = Charter(", *lines, ")"])
