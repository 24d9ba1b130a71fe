"""TypeScript, by fetch."""

from __future__ import annotations

import json
import re

from d2c_mlops.models.core.contract import Contract, Field
from d2c_mlops.serving.clients import Language, rollout_fields, said

TYPES = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "date": "string",
    "date-time": "string",
}

TEMPLATE = """/**
 * Client of the model {model}, contract {version}. Made by `d2c contract client`: make it again rather than edit it.
 * Dates are ISO 8601 texts; integers beyond 2^53 lose digits, as everywhere in JavaScript.
 */

export const CONTRACT = "{version}";

{types}

export interface Problem {{
  title?: string;
  detail?: string;
  status?: number;
  errors?: unknown[];
}}

/** The service refused a request: what it said, by RFC 9457. */
export class Refused extends Error {{
  constructor(readonly status: number, readonly problem: Problem) {{
    super(`${{status}} ${{problem.title ?? ""}}: ${{problem.detail ?? ""}}`);
    this.name = "Refused";
  }}
}}

export interface Options {{
  /** An API key. */
  key?: string;
  /** Milliseconds for one call. */
  timeout?: number;
}}

/** Asks {model}. */
export class Client {{
  constructor(private readonly url: string, private readonly options: Options = {{}}) {{}}

  /** Return one prediction per record, in the same order. */
  async predict(records: InputRecord[], idempotencyKey = ""): Promise<Prediction[]> {{
    return (await this.post<{{ predictions: Prediction[] }}>("/v{major}/predict", {{ records }}, idempotencyKey)).predictions;
  }}
{explain}
  /** Tell what became of a prediction; returns the feedback's id. */
  async feedback(
    predictionId: string,
    action: "followed" | "ignored" | "overridden" | "outcome",
    more: {{ reason?: string; value?: number | boolean | string }} = {{}},
  ): Promise<string> {{
    const told = {{ prediction_id: predictionId, action, ...more }};
    return (await this.post<{{ feedback_id: string }}>("/v{major}/feedback", told)).feedback_id;
  }}

  private async post<T>(path: string, body: unknown, idempotencyKey = ""): Promise<T> {{
    const headers: Record<string, string> = {{ "content-type": "application/json" }};
    if (this.options.key) headers["authorization"] = `Bearer ${{this.options.key}}`;
    if (idempotencyKey) headers["idempotency-key"] = idempotencyKey;
    const response = await fetch(this.url.replace(/\\/$/, "") + path, {{
      method: "POST",
      headers,
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(this.options.timeout ?? 10_000),
    }});
    const text = await response.text();
    let answer: Problem & {{ contract?: string }};
    try {{
      answer = JSON.parse(text);
    }} catch {{
      answer = {{ title: "no JSON", detail: text.slice(0, 200) }};
    }}
    if (!response.ok) throw new Refused(response.status, answer);
    const spoken = answer.contract ?? CONTRACT;
    if (spoken.split(".")[0] !== CONTRACT.split(".")[0]) {{
      throw new Refused(response.status, {{ title: "another contract", detail: `it speaks ${{spoken}}, not ${{CONTRACT}}` }});
    }}
    return answer as T;
  }}
}}
"""

EXPLAIN = """
  /** Return one prediction per record, with its reasons. */
  async explain(records: InputRecord[], idempotencyKey = ""): Promise<Explained[]> {
    return (await this.post<{ predictions: Explained[] }>("/v%d/explain", { records }, idempotencyKey)).predictions;
  }
"""


def write(model: str, contract: Contract, explains: bool) -> str:
    """Return the source of the client."""
    types = [
        _interface("InputRecord", contract.input_fields, "What one record holds."),
        _interface("Prediction", contract.output_fields, "What is said of one record.", ["prediction_id: string;"]),
    ]
    if explains:
        types.append(
            "/** A prediction with its reasons. */\nexport interface Explained extends Prediction {\n  reasons: string[];\n}"
        )
    return TEMPLATE.format(
        model=model,
        version=contract.version,
        types="\n\n".join(types),
        explain=EXPLAIN % contract.major if explains else "",
        major=contract.major,
    )


def _interface(name: str, fields: tuple[Field, ...], doc: str, first: list[str] | None = None) -> str:
    lines = [f"  {line}" for line in first or []]
    for one in fields:
        kind = " | ".join(json.dumps(choice) for choice in one.choices) if one.choices else TYPES[one.kind]
        mark = "?" if one.nullable and name == "InputRecord" else ""
        own = one.name if re.fullmatch(r"[A-Za-z_$][\w$]*", one.name) else json.dumps(one.name)
        lines += [f"  /** {said(one)} */", f"  {own}{mark}: {kind}{' | null' if one.nullable else ''};"]
    for beside, schema in rollout_fields(fields).items() if first else ():
        kind = " | ".join(map(json.dumps, schema["enum"])) if "enum" in schema else TYPES[schema["type"]]
        lines += [f"  /** {schema['description']} */", f"  {beside}?: {kind};"]
    return "\n".join([f"/** {doc} */", f"export interface {name} {{", *lines, "}"])


LANGUAGE = Language("typescript", ".ts", write)
