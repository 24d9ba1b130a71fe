"""Private names of libraries: used behind one module each, within the versions that were tested, with a warning elsewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import logging
import re
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from packaging.requirements import Requirement

from d2c_mlops import library_versions
from d2c_mlops.library_versions import VersionRange, leading_numbers
from d2c_mlops.models.core.contract import Field
from d2c_mlops.saved_response import saved_response
from d2c_mlops.serving.app import bentoml_internals
from d2c_mlops.serving.http import uvicorn_protocol as wire
from d2c_mlops.serving.predict import synthetic
from support.http_server import Shop

CONFIG: dict[str, Any] = {
    "workers": 1,
    "metrics": {"enabled": False},
}  # BentoML registers its metrics once in a process
ROOT = Path(__file__).parents[3]
RANGES = [wire.TESTED, bentoml_internals.TESTED]
OWN_NAMES = {"_thread", "__future__"}  # modules of the standard library with a public documentation


@pytest.fixture(autouse=True)
def warned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in RANGES:
        monkeypatch.setattr(each, "warned", set())
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = [record for record in caplog.records if record.name.startswith("d2c.")]  # not those of Python
    return [record.getMessage() for record in own if record.levelno == logging.WARNING]


# --- ranges


@pytest.mark.parametrize("tested", RANGES, ids=lambda each: each.library)
def test_the_tested_range_is_the_bound_of_the_dependency_and_holds_what_is_locked(tested: VersionRange) -> None:
    settings = ConfigParser(interpolation=None, delimiters="=")
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    bounds = [Requirement(line) for line in settings["package"]["requirements"].split("\n") if line.strip()]
    (bound,) = [each for each in bounds if each.name == tested.library]
    assert bound.specifier == Requirement(str(tested).replace(" ", "")).specifier
    locked = re.search(rf"(?m)^{tested.library}==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert locked is not None and locked[1] in bound.specifier and tested.holds()


@pytest.mark.parametrize(
    ("installed", "holds"),
    [("0.44.9", False), ("0.45.0", True), ("0.54.0.post1", True), ("0.54.0rc1", True), ("0.55.0", False),
     ("1.0", False), ("", False), ("unknown", False)],
)  # fmt: skip
def test_versions_outside_of_the_range_are_known(monkeypatch: pytest.MonkeyPatch, installed: str, holds: bool) -> None:
    monkeypatch.setattr(library_versions, "version", lambda name: installed)
    assert wire.TESTED.holds() is holds


def test_the_release_of_a_version_is_its_leading_numbers() -> None:
    assert (
        leading_numbers("1.4.39") == (1, 4, 39)
        and leading_numbers("0.54.0rc1") == (0, 54, 0)
        and leading_numbers("v1") == ()
    )


# --- uvicorn


def protocol() -> type[Any]:
    config = uvicorn.Config(Shop(), lifespan="off")
    config.load()
    return config.http_protocol_class


def test_the_tested_uvicorn_uses_the_short_way_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert wire.install_protocol() and protocol() is wire.FastHttpProtocol and not warnings(caplog)


@pytest.mark.parametrize("installed", ["0.44.0", "0.55.0", "2.0"])
def test_another_version_of_uvicorn_keeps_its_own_protocol_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: str
) -> None:
    monkeypatch.setattr(library_versions, "version", lambda name: installed)
    assert not wire.install_protocol() and not wire.install_protocol() and protocol() is not wire.FastHttpProtocol
    (told,) = warnings(caplog)
    assert installed in told and "uvicorn >=0.45,<0.55" in told and "own HTTP protocol" in told


@pytest.mark.parametrize("name", ["_start_asgi_task", "on_body", "send_400_response"])
def test_a_uvicorn_without_a_private_name_keeps_its_own_protocol(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    bare = type("HttpToolsProtocol", (), {n: v for n, v in vars(wire.HttpToolsProtocol).items() if n != name})
    monkeypatch.setattr(wire, "HttpToolsProtocol", bare)
    assert not wire.install_protocol() and protocol() is not wire.FastHttpProtocol
    (told,) = warnings(caplog)
    assert f"HttpToolsProtocol.{name} is missing" in told


def test_a_uvicorn_that_starts_its_tasks_otherwise_keeps_its_own_protocol(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wire.HttpToolsProtocol, "_start_asgi_task", lambda self, cycle: None)
    assert not wire.install_protocol() and protocol() is not wire.FastHttpProtocol
    assert "_start_asgi_task(self, cycle, app) is missing" in warnings(caplog)[0]


def test_a_uvicorn_whose_module_moved_does_not_keep_the_service_from_starting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.httptools_impl", None)
    spec = importlib.util.spec_from_file_location("d2c_mlops.serving.wire_copy", wire.__file__)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    before = dict(uvicorn.config.HTTP_PROTOCOLS)
    assert not copy.install_protocol() and before == uvicorn.config.HTTP_PROTOCOLS
    assert "is missing" in warnings(caplog)[0]


# --- BentoML


class Inner:
    """The part of a service that BentoML starts and stops."""


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Answer every path with the word `plain`."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"plain"})


def asked(app: Any, path: str) -> tuple[int, bytes]:
    async def main() -> tuple[int, bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
                 "headers": [], "http_version": "1.1", "scheme": "http", "server": ("h", 1), "client": ("c", 1)}  # fmt: skip
        await app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    return asyncio.run(main())


def test_the_tested_bentoml_passes_requests_straight_to_the_application(caplog: pytest.LogCaptureFixture) -> None:
    given: list[Any] = []
    made = bentoml_internals.make_service(Inner, lambda inner: (given.append(inner), plain)[1], **CONFIG)
    assert made.to_asgi() is plain and callable(given[0]) and not warnings(caplog)


@pytest.mark.parametrize("broken", ["SERVICE", "CONTAINER", "version"])
def test_another_bentoml_mounts_the_application_by_its_public_interface(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    if broken == "version":
        monkeypatch.setattr(library_versions, "version", lambda name: "1.5.0")
    else:
        monkeypatch.setattr(bentoml_internals, broken, ("bentoml.no_such_module", "Name"))
    made = bentoml_internals.make_service(Inner, lambda inner: plain, **CONFIG)
    (told,) = warnings(caplog)
    assert ("1.5.0" if broken == "version" else "no_such_module.Name is missing") in told and "slower" in told
    assert made.name == "d2c" and asked(made.to_asgi(is_main=False), "/predict") == (200, b"plain")


# --- others


def test_without_the_parser_of_patterns_a_probe_uses_the_sample_of_its_field(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    field = Field("code", "string", "Code", pattern="[A-Z]{3}[0-9]{2}")
    assert re.fullmatch(field.pattern or "", synthetic.text_matching(field.pattern or "", field))
    monkeypatch.setattr(synthetic, "patterns", None)
    synthetic._warn_no_pattern_parser.cache_clear()
    assert [synthetic.text_matching(field.pattern or "", field) for _ in range(2)] == [field.sample()] * 2
    assert len(warnings(caplog)) == 1 and "re._parser is missing" in warnings(caplog)[0]


def test_a_saved_response_is_read_as_often_as_one_likes(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text('{"EUR": 1.0}', encoding="utf-8")
    answer = saved_response(tmp_path / "rates.json", "https://example.com/rates.json")
    assert answer.json() == {"EUR": 1.0} and answer.text == answer.content.decode() == '{"EUR": 1.0}' and answer.ok
    assert answer.headers["Content-Length"] == "12"


def private_uses(file: Path) -> set[str]:
    """Return the libraries whose private modules or names a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[list[str]] = []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [[*(node.module or "").split("."), alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        for parts in names:
            if parts[0] not in OWN_NAMES and any(part.startswith("_") and not part.startswith("__") for part in parts):
                found.add("bentoml" if parts[0].startswith("_bentoml") else parts[0])
    return found - {"d2c", "d2c_mlops", "os"}


def test_private_names_of_each_library_are_imported_in_one_module() -> None:
    room = ROOT / "d2c_mlops"
    found: dict[str, list[str]] = {}
    for file in room.rglob("*.py"):
        names = private_uses(file)
        if re.search(r"\b_bentoml_|bentoml\._internal", file.read_text(encoding="utf-8")):
            names.add("bentoml")
        for library in names:
            found.setdefault(library, []).append(str(file.relative_to(room)))
    assert {"bentoml", "pandas"} <= set(found), "the search finds what is known"
    assert {library: files for library, files in found.items() if len(files) > 1} == {}
