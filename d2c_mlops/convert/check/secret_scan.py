"""Scan text for secrets and personal data; matches are always shown masked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from d2c_mlops.convert.source.scopes import split_words

_SHAPES = {
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "a Shopify token": r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b",
    "a Databricks token": r"\bdapi[a-f0-9]{32}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,})\b",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an OpenAI or Anthropic key": r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}\b",
    "a Stripe key": r"\b[rs]k_(?:live|test)_[0-9a-zA-Z]{16,}\b",
    "a Slack token": r"\bxox[abposr]-[0-9A-Za-z-]{10,}",
    "a Klaviyo key": r"\bpk_[a-f0-9]{34}\b",
    "a password in an address": r"\b[a-z][a-z0-9+]*://[^\s:/@'\"{}<>]+:(?P<secret>[^\s@/'\"{}<>$]{3,})@[\w.-]+",
    "a bearer token": r"(?i)\bbearer\s+(?P<secret>[A-Za-z0-9._~+/-]{20,}=*)",
    "a Kaggle key": r"[\"']key[\"']\s*:\s*[\"'](?P<secret>[a-f0-9]{32})[\"']",
    "a private key": r"-----BEGIN (?:RSA |EC |OPENSSH |DSA |PGP )?PRIVATE KEY",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _SHAPES.items()}
_NAMED = re.compile(
    r"(?i)\b(?:\w*_)?(?:password|passwd|pwd|secret(?:_?key)?|api_?key|access_?key|auth_?token|access_?token|client_?secret|"
    r"private_?key|apikey)(?:[\"']\s*\])?[\"']?\s*(?:=|:)\s*[rb]?([\"'])(?P<secret>[^\"'\s]{6,})\1"
)
_PLACEHOLDER = re.compile(
    r"(?i)^(?:x+|\*+|\.+|<.*>|\{.*\}|\$\{?\w+\}?|your.*|my_?.*|change.?me.*|example.*|password\d?|passwd|secret|token|none|null|"
    r"todo.*|placeholder.*|dummy.*|fake_.*|insert.*|enter.*|.*_here|\[.*\]|%\(?\w*\)?s?)$"
)
_CANDIDATE = re.compile(
    r"(?i)pass|pwd|secret|token|api|key|auth|cred|://[^/\s]*@|AKIA|ASIA|ghp_|xox|eyJ|sk_|sk-|hf_|shp|dapi|AIza|pypi-|SG\.|BEGIN |"
    r"AccountKey|SK[0-9a-f]{32}|AC[0-9a-f]{32}|glpat"
)
_LONG_WORD = re.compile(r"[A-Za-z0-9+/=_.-]{20,}|BEGIN ")
_PLUGINS = split_words(
    "ArtifactoryDetector AWSKeyDetector AzureStorageKeyDetector CloudantDetector "
    "DiscordBotTokenDetector GitHubTokenDetector GitLabTokenDetector IbmCloudIamDetector "
    "IbmCosHmacDetector JwtTokenDetector MailchimpDetector NpmDetector OpenAIDetector "
    "PrivateKeyDetector PypiTokenDetector SendGridDetector SlackDetector SoftlayerDetector "
    "SquareOAuthDetector StripeDetector TelegramBotTokenDetector TwilioKeyDetector"
)

_EMAIL = re.compile(r"(?<![\w.+/-])[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,12}(?![\w@-])")
_RESERVED = re.compile(
    r"(?i)@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|\w*example|test|invalid|localhost|sentry\.io|gserviceaccount\.com)$|"
    r"\.(?:png|jpg|svg|py|js|css)$|^(?:git|info|support|contact|noreply|no-reply|admin|sales|hello)@"
)
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ -]\(?\d{1,4}\)?(?:[ -]\d{2,8}){1,4}|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4}|\+\d{10,14})(?![\w.-]*\d)"
)
_CARD = re.compile(
    r"(?<![\w.+-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -])\d{6}\2\d{5}|\d{14,16})(?![\w.]|-\d)"
)
_ISSUER = re.compile(r"^(?:4|5[1-5]|2[2-7]|3[47]|6(?:011|5)|35|3[068])")


@dataclass(frozen=True)
class Sighting:
    """A secret or personal value on a line (from 1) of a text; `mask_secret` hides the value."""

    what: str
    line: int
    column: int
    masked: str


def mask_secret(secret: str) -> str:
    """Show at most the first three characters, and never more than a fifth."""
    shown = min(3, len(secret) // 5)
    return f"{secret[:shown]}{'*' * 8}"


def find_secrets(text: str) -> Iterator[Sighting]:
    """Yield the secrets of a text, at most one per line and kind of secret."""
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) < 8 or not _CANDIDATE.search(line[:4000]):
            continue
        yield from _secrets_in_line(line[:4000], number)


def _secrets_in_line(line: str, number: int) -> Iterator[Sighting]:
    spans: list[tuple[int, int]] = []
    for what, pattern in _PATTERNS.items():
        for match in pattern.finditer(line):
            group = "secret" if "secret" in pattern.groupindex else 0
            secret, (start, end) = match[group], match.span(group)
            if not _PLACEHOLDER.match(secret) and not _spans_overlap(spans, start, end):
                spans.append((start, end))
                yield Sighting(what, number, start + 1, mask_secret(secret))
    for match in _NAMED.finditer(line):
        start, end = match.span("secret")
        if not _PLACEHOLDER.match(match["secret"]) and not _spans_overlap(spans, start, end):
            spans.append((start, end))
            yield Sighting("a password or key", number, start + 1, mask_secret(match["secret"]))
    for what, secret in () if spans else _detected_secrets(line):
        start = max(0, line.find(secret))
        if not _PLACEHOLDER.match(secret) and not _spans_overlap(spans, start, start + len(secret)):
            spans.append((start, start + len(secret)))
            yield Sighting(what, number, start + 1, mask_secret(secret))


def _spans_overlap(spans: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(start < other_end and other_start < end for other_start, other_end in spans)


def _detected_secrets(line: str) -> list[tuple[str, str]]:
    """Run the detectors of detect-secrets on a line with a text as long as a key."""
    if not _LONG_WORD.search(line):
        return []
    return [
        (f"a secret ({kind})", secret) for kind, detector in _secret_detectors() for secret in detector(line) if secret
    ]


@cache
def _secret_detectors() -> tuple[tuple[str, Callable[[str], Iterable[str]]], ...]:
    """Load detect-secrets if it is installed; it takes a third of a second, so only when a line is suspicious."""
    try:
        from detect_secrets.core.plugins import initialize
        from detect_secrets.plugins.base import BasePlugin
    except ImportError:
        return ()
    plugins: Iterable[BasePlugin] = (initialize.from_plugin_classname(name) for name in _PLUGINS)
    return tuple((plugin.secret_type, plugin.analyze_string) for plugin in plugins)


def find_personal_data(text: str) -> Iterator[Sighting]:
    """Yield e-mail addresses, telephone numbers and payment cards of a text, one of each kind with its count."""
    emails = [match for match in _EMAIL.finditer(text) if not _RESERVED.search(match[0])]
    cards = _payment_cards(text)
    card_spans = [match.span() for match in cards]
    phones = [
        match
        for match in _PHONE.finditer(text)
        if 9 <= sum(map(str.isdigit, match[0])) <= 15 and not _spans_overlap(card_spans, *match.span())
    ]
    for what, matches in (
        ("e-mail address", emails),
        ("telephone number", phones),
        ("payment card number", cards),
    ):
        if matches:
            line = text.count("\n", 0, matches[0].start()) + 1
            many = f" and {len(matches) - 1} more" if len(matches) > 1 else ""
            yield Sighting(f"{what}{many}", line, 1, mask_secret(matches[0][0]))


def _payment_cards(text: str) -> list[re.Match[str]]:
    """Numbers of a card's length and issuer with a right check digit; ids pass by chance, so most must be right."""
    shaped = [match for match in _CARD.finditer(text) if _ISSUER.match(match[0])]
    right = [match for match in shaped if has_valid_luhn_digit(match[0])]
    return right if len(right) * 2 > len(shaped) else []


def has_valid_luhn_digit(number: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1)."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0
