"""C#, by HttpClient and System.Text.Json (.NET 8)."""

from __future__ import annotations

import json
from html import escape

from d2c_mlops.models.core.contract import Contract, Field
from d2c_mlops.serving.clients import Language, pascal, rollout_fields, said

TYPES = {
    "string": "string",
    "integer": "long",
    "number": "double",
    "boolean": "bool",
    "date": "DateOnly",
    "date-time": "DateTimeOffset",
}

TEMPLATE = """// Client of the model {model}, contract {version}. Made by `d2c contract client`: make it again rather than edit it.
#nullable enable
using System;
using System.Collections.Generic;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Threading;
using System.Threading.Tasks;

namespace {space};

{types}

/// <summary>The service refused a request: what it said, by RFC 9457.</summary>
public sealed class RefusedException : Exception
{{
    public int Status {{ get; }}
    public JsonElement? Problem {{ get; }}

    public RefusedException(int status, JsonElement? problem, string message) : base(message)
    {{
        Status = status;
        Problem = problem;
    }}
}}

/// <summary>Asks {model}. The HttpClient is the caller's: its BaseAddress is the service.</summary>
public sealed class {space}Client
{{
    public const string Contract = "{version}";

    private readonly HttpClient _http;

    public {space}Client(HttpClient http, string? apiKey = null)
    {{
        _http = http;
        if (apiKey is not null)
        {{
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", apiKey);
        }}
    }}

    /// <summary>One prediction per record, in the same order.</summary>
    public async Task<IReadOnlyList<Prediction>> PredictAsync(
        IReadOnlyList<InputRecord> records, string? idempotencyKey = null, CancellationToken cancel = default)
    {{
        var body = new Dictionary<string, object?> {{ ["records"] = records }};
        return (await PostAsync<Answer<Prediction>>("v{major}/predict", body, idempotencyKey, cancel)).Predictions;
    }}
{explain}
    /// <summary>Tells what became of a prediction: followed, ignored, overridden (with a reason) or outcome (with a value).</summary>
    public async Task<string> FeedbackAsync(
        string predictionId, string action, string? reason = null, object? value = null, CancellationToken cancel = default)
    {{
        var body = new Dictionary<string, object?> {{ ["prediction_id"] = predictionId, ["action"] = action }};
        if (reason is not null)
        {{
            body["reason"] = reason;
        }}
        if (value is not null)
        {{
            body["value"] = value;
        }}
        return (await PostAsync<Taken>("v{major}/feedback", body, null, cancel)).FeedbackId;
    }}

    private async Task<T> PostAsync<T>(string path, object body, string? idempotencyKey, CancellationToken cancel)
    {{
        using var request = new HttpRequestMessage(HttpMethod.Post, path) {{ Content = JsonContent.Create(body) }};
        if (idempotencyKey is not null)
        {{
            request.Headers.Add("Idempotency-Key", idempotencyKey);
        }}
        using var response = await _http.SendAsync(request, cancel);
        var text = await response.Content.ReadAsStringAsync(cancel);
        if (!response.IsSuccessStatusCode)
        {{
            throw new RefusedException((int)response.StatusCode, Parsed(text), $"{{(int)response.StatusCode}}: {{text}}");
        }}
        var answer = JsonSerializer.Deserialize<T>(text) ?? throw new RefusedException(200, null, "an empty answer");
        if (answer is IAnswer spoken && spoken.ContractVersion.Split('.')[0] != Contract.Split('.')[0])
        {{
            throw new RefusedException(200, null, $"it speaks {{spoken.ContractVersion}}, not {{Contract}}");
        }}
        return answer;
    }}

    private static JsonElement? Parsed(string text)
    {{
        try
        {{
            return JsonSerializer.Deserialize<JsonElement>(text);
        }}
        catch (JsonException)
        {{
            return null;
        }}
    }}

    private interface IAnswer
    {{
        string ContractVersion {{ get; }}
    }}

    private sealed record Answer<TPrediction>(
        [property: JsonPropertyName("contract")] string ContractVersion,
        [property: JsonPropertyName("predictions")] IReadOnlyList<TPrediction> Predictions) : IAnswer;

    private sealed record Taken([property: JsonPropertyName("feedback_id")] string FeedbackId);
}}
"""

EXPLAIN = """
    /// <summary>One prediction per record, with its reasons.</summary>
    public async Task<IReadOnlyList<Explained>> ExplainAsync(
        IReadOnlyList<InputRecord> records, string? idempotencyKey = null, CancellationToken cancel = default)
    {
        var body = new Dictionary<string, object?> { ["records"] = records };
        return (await PostAsync<Answer<Explained>>("v%d/explain", body, idempotencyKey, cancel)).Predictions;
    }
"""


def write(model: str, contract: Contract, explains: bool) -> str:
    """Return the source of the client."""
    own = [("prediction_id", "string", "Identifies this prediction in logs and feedback")]
    types = [
        _record("InputRecord", contract.input_fields, "What one record holds.", []),
        _record("Prediction", contract.output_fields, "What is said of one record.", own),
    ]
    if explains:
        said_too = [*own, ("reasons", "IReadOnlyList<string>", "Reasons, the weightiest first")]
        types.append(_record("Explained", contract.output_fields, "A prediction with its reasons.", said_too))
    return TEMPLATE.format(
        model=model,
        version=contract.version,
        space=pascal(model),
        types="\n\n".join(types),
        explain=EXPLAIN % contract.major if explains else "",
        major=contract.major,
    )


def _record(name: str, fields: tuple[Field, ...], doc: str, first: list[tuple[str, str, str]]) -> str:
    rows = [*first, *((one.name, TYPES[one.kind] + ("?" if one.nullable else ""), _described(one)) for one in fields)]
    if first:
        rows += [(own, f"{TYPES[one['type']]}?", one["description"]) for own, one in rollout_fields(fields).items()]
    taken: set[str] = {name}
    lines = []
    for own, kind, words in rows:
        made = pascal(own)
        while made in taken:
            made += "Value"
        taken.add(made)
        required = "" if kind.endswith("?") else "required "
        lines += [
            f"    /// <summary>{escape(words, quote=False)}</summary>",
            f"    [JsonPropertyName({json.dumps(own)})]",
            f"    public {required}{kind} {made} {{ get; init; }}",
        ]
    return "\n".join([f"/// <summary>{doc}</summary>", f"public sealed record {name}", "{", "\n\n".join(
        "\n".join(lines[i : i + 3]) for i in range(0, len(lines), 3)), "}"])  # fmt: skip


def _described(field: Field) -> str:
    choices = f" One of: {', '.join(field.choices)}." if field.choices else ""
    return f"{said(field)}{choices}"


LANGUAGE = Language("csharp", ".cs", write)
