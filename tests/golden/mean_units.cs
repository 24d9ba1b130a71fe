// Client of the model mean_units, contract 1.0.0. Made by `d2c contract client`: make it again rather than edit it.
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

namespace MeanUnits;

/// <summary>What one record holds.</summary>
public sealed record InputRecord
{
    /// <summary>The product's identifier</summary>
    [JsonPropertyName("product_id")]
    public required string ProductId { get; init; }

    /// <summary>Day asked for</summary>
    [JsonPropertyName("day")]
    public required DateOnly Day { get; init; }
}

/// <summary>What is said of one record.</summary>
public sealed record Prediction
{
    /// <summary>Identifies this prediction in logs and feedback</summary>
    [JsonPropertyName("prediction_id")]
    public required string PredictionId { get; init; }

    /// <summary>The product's identifier</summary>
    [JsonPropertyName("product_id")]
    public required string ProductId { get; init; }

    /// <summary>Units [units]</summary>
    [JsonPropertyName("units")]
    public required double Units { get; init; }

    /// <summary>Version that answered this record, while two versions answer; the answer's own when absent</summary>
    [JsonPropertyName("version")]
    public long? Version { get; init; }

    /// <summary>Which of the two that is; absent while one version answers</summary>
    [JsonPropertyName("variant")]
    public string? Variant { get; init; }
}

/// <summary>A prediction with its reasons.</summary>
public sealed record Explained
{
    /// <summary>Identifies this prediction in logs and feedback</summary>
    [JsonPropertyName("prediction_id")]
    public required string PredictionId { get; init; }

    /// <summary>Reasons, the weightiest first</summary>
    [JsonPropertyName("reasons")]
    public required IReadOnlyList<string> Reasons { get; init; }

    /// <summary>The product's identifier</summary>
    [JsonPropertyName("product_id")]
    public required string ProductId { get; init; }

    /// <summary>Units [units]</summary>
    [JsonPropertyName("units")]
    public required double Units { get; init; }

    /// <summary>Version that answered this record, while two versions answer; the answer's own when absent</summary>
    [JsonPropertyName("version")]
    public long? Version { get; init; }

    /// <summary>Which of the two that is; absent while one version answers</summary>
    [JsonPropertyName("variant")]
    public string? Variant { get; init; }
}

/// <summary>The service refused a request: what it said, by RFC 9457.</summary>
public sealed class RefusedException : Exception
{
    public int Status { get; }
    public JsonElement? Problem { get; }

    public RefusedException(int status, JsonElement? problem, string message) : base(message)
    {
        Status = status;
        Problem = problem;
    }
}

/// <summary>Asks mean_units. The HttpClient is the caller's: its BaseAddress is the service.</summary>
public sealed class MeanUnitsClient
{
    public const string Contract = "1.0.0";

    private readonly HttpClient _http;

    public MeanUnitsClient(HttpClient http, string? apiKey = null)
    {
        _http = http;
        if (apiKey is not null)
        {
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", apiKey);
        }
    }

    /// <summary>One prediction per record, in the same order.</summary>
    public async Task<IReadOnlyList<Prediction>> PredictAsync(
        IReadOnlyList<InputRecord> records, string? idempotencyKey = null, CancellationToken cancel = default)
    {
        var body = new Dictionary<string, object?> { ["records"] = records };
        return (await PostAsync<Answer<Prediction>>("v1/predict", body, idempotencyKey, cancel)).Predictions;
    }

    /// <summary>One prediction per record, with its reasons.</summary>
    public async Task<IReadOnlyList<Explained>> ExplainAsync(
        IReadOnlyList<InputRecord> records, string? idempotencyKey = null, CancellationToken cancel = default)
    {
        var body = new Dictionary<string, object?> { ["records"] = records };
        return (await PostAsync<Answer<Explained>>("v1/explain", body, idempotencyKey, cancel)).Predictions;
    }

    /// <summary>Tells what became of a prediction: followed, ignored, overridden (with a reason) or outcome (with a value).</summary>
    public async Task<string> FeedbackAsync(
        string predictionId, string action, string? reason = null, object? value = null, CancellationToken cancel = default)
    {
        var body = new Dictionary<string, object?> { ["prediction_id"] = predictionId, ["action"] = action };
        if (reason is not null)
        {
            body["reason"] = reason;
        }
        if (value is not null)
        {
            body["value"] = value;
        }
        return (await PostAsync<Taken>("v1/feedback", body, null, cancel)).FeedbackId;
    }

    private async Task<T> PostAsync<T>(string path, object body, string? idempotencyKey, CancellationToken cancel)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = JsonContent.Create(body) };
        if (idempotencyKey is not null)
        {
            request.Headers.Add("Idempotency-Key", idempotencyKey);
        }
        using var response = await _http.SendAsync(request, cancel);
        var text = await response.Content.ReadAsStringAsync(cancel);
        if (!response.IsSuccessStatusCode)
        {
            throw new RefusedException((int)response.StatusCode, Parsed(text), $"{(int)response.StatusCode}: {text}");
        }
        var answer = JsonSerializer.Deserialize<T>(text) ?? throw new RefusedException(200, null, "an empty answer");
        if (answer is IAnswer spoken && spoken.ContractVersion.Split('.')[0] != Contract.Split('.')[0])
        {
            throw new RefusedException(200, null, $"it speaks {spoken.ContractVersion}, not {Contract}");
        }
        return answer;
    }

    private static JsonElement? Parsed(string text)
    {
        try
        {
            return JsonSerializer.Deserialize<JsonElement>(text);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private interface IAnswer
    {
        string ContractVersion { get; }
    }

    private sealed record Answer<TPrediction>(
        [property: JsonPropertyName("contract")] string ContractVersion,
        [property: JsonPropertyName("predictions")] IReadOnlyList<TPrediction> Predictions) : IAnswer;

    private sealed record Taken([property: JsonPropertyName("feedback_id")] string FeedbackId);
}
