"""Addresses of a notebook are found without running it, downloaded within limits, and read from the copies."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import pytest

from d2c_mlops.convert.check.check import check
from d2c_mlops.convert.check.notebook_urls import find_url_sources, without_secrets
from d2c_mlops.convert.check.rule import Subject
from d2c_mlops.convert.convert import convert
from d2c_mlops.convert.repair.data_files import DataFiles
from d2c_mlops.convert.repair.downloads import download_fixes, download_urls, safe_file_name
from d2c_mlops.convert.repair.fix_registry import RepairContext, apply_notebook_edits
from d2c_mlops.convert.source.download import NotFetched, download, is_public
from d2c_mlops.convert.source.notebook import code_cell, read_notebook
from d2c_mlops.saved_response import saved_response, saved_url
from d2c_mlops.settings import load_settings

TABLE = b"day,units\n2024-01-01,3\n2024-01-02,5\n"


class Answers(http.server.BaseHTTPRequestHandler):
    heads: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        self.heads.append(dict(self.headers))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        if self.path == "/again":
            self.send_response(302)
            self.send_header("Location", "/again")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/gone" else 200)
        body = b'{"rate": 2}' if "json" in self.path else TABLE
        if self.path == "/cut":
            self.send_header("Content-Length", str(len(body) + 10))
        elif self.path not in ("/endless", "/slow"):
            self.send_header("Content-Length", str(len(body) if self.path != "/large" else 10**12))
        self.end_headers()
        try:
            for _ in range(10_000 if self.path == "/endless" else 1):
                self.wfile.write(body)
            for _ in range(40 if self.path == "/slow" else 0):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            return

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def notebook(folder: Path, *cells: str) -> Path:
    folder.mkdir(exist_ok=True)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    nbformat.write(made, folder / "sales.ipynb")  # type: ignore[no-untyped-call]
    return folder / "sales.ipynb"


def found(folder: Path, *cells: str) -> list[tuple[str, str]]:
    subject = Subject(read_notebook(notebook(folder, *cells)))
    return [(each.url, each.refusal) for each in find_url_sources(subject)]


@pytest.mark.parametrize(
    "number",
    ["127.0.0.1", "10.1.2.3", "172.16.0.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
     "192.0.2.1", "::1", "::", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_addresses_of_this_network_are_not_public(number: str) -> None:
    assert not is_public(number)


@pytest.mark.parametrize("number", ["1.1.1.1", "151.101.0.133", "2606:4700::1111"])
def test_addresses_of_the_internet_are_public(number: str) -> None:
    assert is_public(number)


def test_a_private_host_is_asked_only_where_it_is_named(host: str, tmp_path: Path) -> None:
    before = len(Answers.heads)
    for url in (
        f"http://{host}/sales.csv",
        f"http://localhost:{host[10:]}/sales.csv",
        f"http://2130706433:{host[10:]}/sales.csv",
    ):
        with pytest.raises(NotFetched, match=rf"inside your network; to allow it: --fetch-from .*{host[10:]}"):
            download(url, tmp_path / "x")
    assert len(Answers.heads) == before and not list(tmp_path.iterdir())
    with pytest.raises(NotFetched, match="inside your network"):
        download(f"http://{host}/sales.csv", tmp_path / "x", allowed_private_hosts=["127.0.0.1:1"])
    done = download(f"http://{host}/sales.csv", tmp_path / "x", allowed_private_hosts=[host])
    assert (done.size, (tmp_path / "x").read_bytes()) == (len(TABLE), TABLE)


def test_every_redirect_is_checked_again(host: str, tmp_path: Path) -> None:
    for place in (
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/x",
        "file:///etc/passwd",
        "ftp://1.1.1.1/x",
    ):
        with pytest.raises(NotFetched, match=r"inside your network|not http or https"):
            download(f"http://{host}/to/{place}", tmp_path / "x", allowed_private_hosts=[host])
    assert download(f"http://{host}/to//sales.csv", tmp_path / "x", allowed_private_hosts=[host]).size == len(TABLE)
    with pytest.raises(NotFetched, match="redirects"):
        download(f"http://{host}/again", tmp_path / "y", allowed_private_hosts=[host])
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_a_name_is_looked_up_once_and_all_its_numbers_count(host: str, tmp_path: Path) -> None:
    asked: list[str] = []

    def lookup(name: str, port: int, **more: Any) -> list[Any]:
        asked.append(name)
        numbers = ["1.1.1.1", "127.0.0.1"] if name == "mixed.example" else ["127.0.0.1"]
        return [(2, 1, 6, "", (number, port)) for number in numbers]

    with pytest.raises(NotFetched, match=r"mixed.example \(127.0.0.1\) is inside your network"):
        download(f"http://mixed.example:{host[10:]}/x", tmp_path / "x", lookup=lookup)
    name = f"own.example:{host[10:]}"
    assert download(
        f"http://{name}/sales.csv", tmp_path / "x", allowed_private_hosts=[name], lookup=lookup
    ).size == len(TABLE)
    assert asked == ["mixed.example", "own.example"] and Answers.heads[-1]["Host"] == name


def test_no_credentials_and_no_proxy_of_this_machine_are_used(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login shop password geheim\ndefault login shop password geheim\n"
    )
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://shop:geheim@127.0.0.1:9")
    download(f"http://{host}/sales.csv", tmp_path / "x", allowed_private_hosts=[host])
    sent = Answers.heads[-1]
    assert set(sent) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"} and "geheim" not in str(sent)
    with pytest.raises(NotFetched, match="user name or a password"):
        download(f"http://shop:geheim@{host}/sales.csv", tmp_path / "y", allowed_private_hosts=[host])


@pytest.mark.parametrize(("path", "why"), [("large", "1,000,000,000,000 bytes"), ("endless", "more than 100,000 bytes"),
                                           ("cut", "IncompleteRead|closed after"), ("gone", "404"), ("slow", "time limit")])  # fmt: skip
def test_what_is_too_large_late_or_broken_leaves_nothing(host: str, path: str, why: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(NotFetched, match=why):
        download(f"http://{host}/{path}", tmp_path / "x", allowed_private_hosts=[host], max_bytes=100_000, seconds=0.5)
    assert not list(tmp_path.iterdir()) and time.monotonic() - began < 3


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x.example/a", "gopher://x/", "http:///x", "http://x.example:port/",
                                 "http://x.example/a b\r\nHost: y"])  # fmt: skip
def test_only_plain_web_addresses_are_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFetched):
        download(url, tmp_path / "x", lookup=lambda *a, **k: pytest.fail("it must not be looked up"))


@pytest.mark.parametrize(
    "cell",
    [
        "import pandas as pd\npd.read_csv('https://x.example/a.csv')",
        "from pandas import read_parquet as r\nr(path='https://x.example/a.csv')",
        "import pandas\nBASE = 'https://x.example'\nNAME = BASE + '/a.csv'\npandas.read_json(NAME)",
        "import pandas as pd\nsite = 'x.example'\npd.read_csv(f'https://{site}/a.csv', sep=';')",
        "import numpy as np\nnp.genfromtxt('https://x.example/a.csv')",
        "from urllib.request import urlretrieve\nurlretrieve('https://x.example/a.csv', 'b.csv')",
        "import urllib.request\nurllib.request.urlopen('https://x.example/a.csv').read()",
        "import requests\ndef get():\n    return requests.get('https://x.example/a.csv').json()",
        "import requests as r\ns = r.Session()\ns.get('https://x.example/a.csv')",
        "import wget\nwget.download('https://x.example/a.csv')",
        "!wget -q https://x.example/a.csv",
        "!curl -s -o data/b.csv https://x.example/a.csv",
    ],
)
def test_addresses_are_found_in_the_usual_readers(cell: str, tmp_path: Path) -> None:
    assert found(tmp_path, cell) == [("https://x.example/a.csv", "")]


@pytest.mark.parametrize(
    "cell",
    [
        "import requests\nrequests.get('https://x.example/a.csv', params={'q': 1})",
        "import requests\nrequests.get('https://x.example/a.csv', auth=('a', 'b'))",
        "import urllib.request as u\nu.urlopen('https://x.example/a.csv', b'x')",
        "!curl https://x.example/a.csv | head",
        "!wget -O /etc/b.csv https://x.example/a.csv",
        "!curl -H 'Authorization: x' -o b.csv https://x.example/a.csv",
    ],
)
def test_what_a_plain_download_would_not_give_is_told(cell: str, tmp_path: Path) -> None:
    assert [(url, bool(why)) for url, why in found(tmp_path, cell)] == [("https://x.example/a.csv", True)]


def test_texts_that_are_not_read_are_no_sources(tmp_path: Path) -> None:
    cells = [
        "about = 'https://x.example/a'\nprint(about)",
        "import pandas as pd\nfor n in [1]:\n    pd.read_csv(f'https://x.example/{n}')",
    ]
    assert found(tmp_path, *cells) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x.example/a/b%2F..%2Fc.csv?x=1", "c.csv"),
        ("https://x.example/..%2f..%2f.bashrc", "bashrc"),
        ("https://x.example/a%00b%0a;rm.csv", "a_b_rm.csv"),
        ("https://x.example/", "index.html"),
    ],
)
def test_files_get_plain_names(url: str, name: str) -> None:
    assert safe_file_name(url, ()) == name


def test_a_file_is_never_a_module_nor_another_file() -> None:
    for url in ("https://x.example/json.py", "https://x.example/sitecustomize.PY", "https://x.example/x.pth"):
        assert safe_file_name(url, ())[8] == "-"
    assert safe_file_name("https://x.example/A.csv", ["fetched/a.csv"]).endswith("-A.csv")


def test_queries_and_passwords_are_not_shown() -> None:
    assert without_secrets("https://shop:geheim@x.example/a?token=geheim#geheim") == "https://x.example/a"


def test_the_notebook_reads_the_copies(host: str, tmp_path: Path) -> None:
    path = notebook(
        tmp_path / "old",
        "import pandas as pd\nimport requests\nimport urllib.request",
        f"sales = pd.read_csv('http://{host}/sales.csv', storage_options={{'User-Agent': 'x'}}, sep=',')",
        f"rate = requests.get('http://{host}/rate.json', headers={{'a': 'b'}}).json()",
        f"text = urllib.request.urlopen('http://{host}/more.csv').read()",
        f"urllib.request.urlretrieve('http://{host}/third.csv', 'third.csv')",
        f"if True:\n    !wget -q http://{host}/fourth.csv",
        f"gone = pd.read_csv('http://{host}/gone')",
    )
    context = RepairContext(read_notebook(path), DataFiles([tmp_path]))
    done = download_urls(
        list(find_url_sources(context.subject)), tmp_path / "got", allowed=[host], used_names=["fetched/rate.json"]
    )
    assert [bool(each.file) for each in done] == [True, True, True, True, False, True]
    assert "404" in done[4].reason and done[0].sha256 and done[0].size == len(TABLE)
    assert all((tmp_path / "got" / each.file).exists() for each in done if each.file)
    new = apply_notebook_edits(
        context.notebook, [edit for _, offer in download_fixes(context, done) for edit in offer.edits]
    )
    cells = [cell.source for cell in new.cells]
    assert cells[1] == "sales = pd.read_csv('fetched/sales.csv', sep=',')"
    assert (
        cells[2].endswith(f"rate = saved_response('{done[1].file}', 'http://{host}/rate.json').json()")
        and "-rate" in done[1].file
    )
    assert cells[3].endswith("urllib.request.urlopen(saved_url('fetched/more.csv')).read()")
    assert cells[4].startswith("# urllib.request.urlretrieve") and cells[5].startswith("if True:\n    pass  # wget")
    assert all(code_cell(number, text).tree is not None for number, text in enumerate(cells)) and "/gone'" in cells[6]


def test_a_saved_response_is_like_the_answer_of_a_server(tmp_path: Path) -> None:
    import urllib.request

    (tmp_path / "a.json").write_text('{"rate": "ü"}', encoding="utf-8")
    made = saved_response(tmp_path / "a.json", "https://x.example/a")
    made.raise_for_status()
    assert (
        made.ok and made.json() == {"rate": "ü"} and made.text == '{"rate": "ü"}' and made.url == "https://x.example/a"
    )
    assert b"".join(made.iter_content(4)) == (tmp_path / "a.json").read_bytes()
    assert urllib.request.urlopen(saved_url(tmp_path / "a.json")).read() == (tmp_path / "a.json").read_bytes()
    with pytest.raises(FileNotFoundError):
        saved_response(tmp_path / "b.json", "")


@pytest.mark.parametrize(
    "cell",
    ["import pandas as pd\nU = 'https://x.example'\npd.read_csv(U + '/a.csv')", "import requests\nrequests.get('https://x.example/a.csv')",
     "import urllib.request as u\nu.urlopen(u.Request('https://x.example/a.csv'))"],
)  # fmt: skip
def test_the_finding_names_fetch(cell: str, tmp_path: Path) -> None:
    told = [each for each in check(notebook(tmp_path, cell)).findings if each.rule == "D2C205"]
    assert [each.message for each in told] == ["data is loaded from https://x.example/a.csv"] and "--fetch" in told[
        0
    ].fix


@pytest.mark.slow
def test_a_conversion_fetches_first_and_runs_without_a_network(host: str, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    path = notebook(
        tmp_path / "old",
        f"import pandas as pd, requests\nBASE = 'http://{host}/'",
        "sales = pd.read_csv(BASE + 'sales.csv')",
        f"rate = requests.get('http://{host}/rate.json').json()['rate']",
        "total = sales['units'].sum() * rate\nprint(total)",
    )
    settings = load_settings(tmp_path / "shop", environ={})
    refused = convert(path, settings=settings)
    assert refused.refusal is not None and refused.refusal.cell == 2 and "--fetch" in refused.next
    inside = convert(path, settings=settings, fetch=True)
    assert inside.refusal is not None and f"--fetch-from {host}" in inside.next
    done = convert(path, settings=settings, fetch=True, fetch_from=[host])
    assert done.refusal is None and done.verdict.status == "equivalent", done.to_text()
    assert f"cell 2: http://{host}/sales.csv is read from fetched/sales.csv" in done.to_text()
    assert done.report is not None and "fetched/sales.csv" in done.report.read_text()
    told = json.loads((done.work / "report.json").read_text())["revived"]["fetched"]
    assert [each["cell"] for each in told] == [2, 3]
