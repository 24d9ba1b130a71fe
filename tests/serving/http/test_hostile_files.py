"""Files and addresses that mean harm: bombs, formulas, links out of a folder, passwords in addresses, an emptied file of keys."""

import base64
import csv
import gzip
import io
import json
import lzma
import os
import random
import resource
import sys
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2c_mlops.convert.repair.data_files import detect_file_kind
from d2c_mlops.data.ingestion.reading import parts_at
from d2c_mlops.data.sources import fetch as parquet
from d2c_mlops.data.sources import text_encoding
from d2c_mlops.data.sources.archives import ZipSource
from d2c_mlops.data.sources.fetch import read_parquet, without_password
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.data.sources.text_encoding import read_bytes
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.forgetting.file_scrubbing import scrub_content
from d2c_mlops.forgetting.person import Person
from d2c_mlops.formulas import csv_text, escape_formula, escape_formulas, unescape_formula, unescape_formulas
from d2c_mlops.memory_limit import memory_limit
from d2c_mlops.runs.run_history import _write_csv
from d2c_mlops.serving.app.app import ServiceContext
from d2c_mlops.serving.batch.sinks import _File
from d2c_mlops.serving.batch.webhook_sink import check_encrypted, masked_url, post_once, split_credentials
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.package.bento import copy_inside
from support.cpu import least_cpu_seconds
from support.lead_service import ASK, asking

# --- bombs

ZEROS = b"0" * (8 * 2**20)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask from 4 MiB on, so that the files of the tests are made in no time."""
    assert text_encoding.SMALL == 64 * 2**20
    monkeypatch.setattr(text_encoding, "SMALL", 4 * 2**20)


def as_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("orders.csv", ZEROS)


def as_nested_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as pack:
        pack.writestr("orders.csv.gz", gzip.compress(ZEROS))


def as_tar(path: Path) -> None:
    with tarfile.open(path, "w:xz") as pack:
        entry = tarfile.TarInfo("orders.csv")
        entry.size = len(ZEROS)
        pack.addfile(entry, io.BytesIO(ZEROS))


def as_tar_of_others(path: Path) -> None:
    with tarfile.open(path, "w:gz") as pack:
        entry = tarfile.TarInfo("film.mp4")
        entry.size = len(ZEROS)
        pack.addfile(entry, io.BytesIO(ZEROS))


@pytest.mark.parametrize(
    ("name", "write"), [("a.zip", as_zip), ("b.zip", as_nested_zip), ("c.tar.xz", as_tar), ("d.tgz", as_tar_of_others)]
)
def test_an_archive_that_grows_as_no_table_does_is_refused(small: None, tmp_path: Path, name: str, write) -> None:
    write(tmp_path / name)
    with pytest.raises(DataRefused, match="more than 300 times its size"):
        ZipSource().read(str(tmp_path / name))


def tar_describing(kind: bytes, description: bytes) -> bytes:
    """Return a tar file with an empty table, described in a header of its own."""
    described, table = tarfile.TarInfo("x"), tarfile.TarInfo("orders.csv")
    described.type, described.size = kind, len(description)
    padded = description + bytes(-len(description) % 512)
    return described.tobuf(tarfile.USTAR_FORMAT) + padded + table.tobuf() + bytes(1024)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bytes])
@pytest.mark.parametrize("description", [b"1" * 40_000, b"a" * (2 * 2**20)])
def test_a_tar_file_with_a_costly_description_is_refused_in_no_time(
    tmp_path: Path, kind: bytes, pack, description: bytes
) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(pack(tar_describing(kind, description)))

    def refused() -> None:
        with pytest.raises(DataRefused, match=r"describes a file with"):
            ZipSource().read(str(path))

    assert least_cpu_seconds(refused, 1.0) < 1.0


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_file_with_a_long_name_is_read(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz", format=form) as pack:
        entry = tarfile.TarInfo(f"{'2024' * 200}/orders.csv")
        entry.size = 5
        pack.addfile(entry, io.BytesIO(b"id\n1\n"))
    assert ZipSource().read(str(path))["orders"].shape == (1, 1)


@pytest.mark.parametrize("name", ["a.tgz", "a.tar.xz", "a.tar.bz2"])
def test_a_damaged_tar_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with tarfile.open(path, f"w:{ {'a.tgz': 'gz', 'a.tar.xz': 'xz', 'a.tar.bz2': 'bz2'}[name] }") as pack:
        entry = tarfile.TarInfo("orders.csv")
        entry.size = 60_000
        pack.addfile(entry, io.BytesIO(random.Random(7).randbytes(60_000)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\0" * 64 + data[len(data) // 2 + 64 :])
    with pytest.raises(DataRefused, match="cannot be read"):
        ZipSource().read(str(path))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_packed_file_that_grows_as_no_table_does_is_refused(small: None, tmp_path: Path, suffix: str, pack) -> None:
    bomb, table = tmp_path / f"a.csv{suffix}", tmp_path / f"b.csv{suffix}"
    bomb.write_bytes(pack(ZEROS))
    table.write_bytes(pack(b"id\n1\n" * 1000))
    with pytest.raises(DataRefused, match="more than 300 times its size"):
        read_bytes(bomb)
    assert read_bytes(table) == b"id\n1\n" * 1000


def test_a_parquet_file_is_refused_by_what_it_says_before_its_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.parquet"
    nothing = pa.nulls(2_000_000, pa.int64())
    pq.write_table(pa.table({f"c{i}": nothing for i in range(80)}), file)
    monkeypatch.setattr(parquet.pq, "read_table", lambda *args, **more: pytest.fail("rows were read"))
    with pytest.raises(DataRefused, match=r"2,000,000 rows of 80 columns in .* bytes, which take 1\.2 GiB"):
        read_parquet(file)
    monkeypatch.setattr(parquet, "PARQUET_SMALL", 2**40)
    monkeypatch.setattr(parquet, "MEMORY", 2**30)
    with pytest.raises(DataRefused, match="GiB of memory"):
        read_parquet(file)
    pq.write_table(pa.table({f"c{i}": [1] for i in range(10_001)}), file)
    with pytest.raises(DataRefused, match="10,001 columns"):
        read_parquet(file)


def test_parquet_that_repeats_itself_within_reason_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"country": pa.array(["DE"] * 500_000)}), file)
    assert len(read_parquet(file)) == 500_000


# Written by pyarrow: a dictionary of one text, DELTA_BYTE_ARRAY, a list of zeros; each with zstd.
BOMBS = {
    "a text of a megabyte 40,000 times": (
        "UEFSMRUEFYiJehVsTBUCFQASAAAotS/9gEhEQg8AbAAAKEBCDwB4AQD4/znQAgIAEHgCABB4AgAQeAIAEHgCABB4AgAQeCMSCngV"
        "ABUaFSwsFcC4AhUQFQYVBhw2AAAAACi1L/0gDWkAAAQAAADAuAIBAcC4AgAVABUaFSwsFcC4AhUQFQYVBhw2AAAAACi1L/0gDWkA"
        "AAQAAADAuAIBAcC4AgAVBBksNQAYBnNjaGVtYRUCABUMJQIYCG9yZGVyX2lkJQBMHAAAABaA8QQZHBkcJgAcFQwZNQAGEBkYCG9y"
        "ZGVyX2lkFQwWgPEEFriKehbAAiaUASYIHDYAABksFQQVABUCABUAFRAVBAA8FoDA/IKqAhkGGSYAgPEEAAAAFriKehaA8QQmCBbA"
        "AgAoIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24gMjUuMC4xGRwcAAAAsgAAAFBBUjE="
    ),
    "3,000 texts with the same 300,000 letters": (
        "UEFSMRUAFcbZJBXGASwV8C4VDhUGFQYcNgAAAAAotS/9oGOWBAB8AgDEAwMAAADwLgGAAQS4FwAAEwAAAOCTBACAAQS4F8DPJL/P"
        "JBMTExMAAACfJPgkwScJPknwSYJPEnyS4JMEeAQAef14LpB/paAXNtUHR4EmAgAQeBuzBHgVBBksNQAYBnNjaGVtYRUCABUMJQIY"
        "AWElAEwcAAAAFvAuGRwZHCYAHBUMGSUGDhkYAWEVDBbwLhb42SQW+AEmCDw2AAAZHBUAFQ4VAgA8FsDPJBkGGSYA8C4AAAAW+Nkk"
        "FvAuJggW+AEAKCBwYXJxdWV0LWNwcC1hcnJvdyB2ZXJzaW9uIDI1LjAuMRkcHAAAAJIAAABQQVIx"
    ),
    "a row with a list of 300 million numbers": (
        "UEFSMRUEFQgVGkwVAhUAEgAAKLUv/SAEIQAAAAAAABUAFToVTCwVgIyNngIVEBUGFQYcGAQAAAAAGAQAAAAAFgAoBAAAAAAYBAAA"
        "AAAREQAAACi1L/0gHekAAAgAAAAD/vCLjZ4CAQYAAACAjI2eAgMBgIyNngIAFQQZTDUAGAZzY2hlbWEVAgA1AhgBYRUCFQZMPAAA"
        "ADUEGARsaXN0FQIAFQIlAhgHZWxlbWVudCUeTKwTCBEAAAAWAhkcGRwmABwVAhk1AAYQGTgBYQRsaXN0B2VsZW1lbnQVDBaAjI2e"
        "AhbEARboASY+JggcGAQAAAAAGAQAAAAAFgAoBAAAAAAYBAAAAAAREQAZLBUEFQAVAgAVABUQFQIAPCkmjp4C8u2KngIZRgAAAICM"
        "jZ4CAAAAFsQBFgImCBboAQAoIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24gMjUuMC4xGRwcAAAA7QAAAFBBUjE="
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process can be limited on Linux only")
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_few_bytes_of_parquet_that_describe_little_and_hold_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, packed: bool
) -> None:
    monkeypatch.setattr(parquet, "PARQUET_SMALL", 2**27)
    file = tmp_path / "a.parquet"
    file.write_bytes(base64.b64decode(BOMBS[name]))
    assert file.stat().st_size < 400
    if packed:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
            pack.write(file, "a.parquet")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(DataRefused, match=r"GiB of memory"):
        parts_at(str(tmp_path / ("a.zip" if packed else "a.parquet")), FileFormat())
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process can be limited on Linux only")
def test_files_that_are_small_each_and_too_large_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PARQUET_SMALL", 2**27)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 150, pa.int32()), pa.array(["x" * 10**6]))
    for number in range(8):
        pq.write_table(pa.table({"a": texts}), tmp_path / f"{number}.parquet", compression="zstd", store_schema=False)
    assert len(read_parquet(tmp_path / "0.parquet")) == 150
    with pytest.raises(DataRefused, match=r"GiB of memory"):
        parts_at(str(tmp_path), FileFormat())


def test_a_limit_of_memory_ends_with_its_block_and_holds_for_inner_ones() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_limit(2**27):
        outer = resource.getrlimit(resource.RLIMIT_DATA)
        with memory_limit(2**40):
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] <= outer[0]
        with pytest.raises(MemoryError):
            bytearray(2**28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before and len(bytearray(2**28)) == 2**28


def test_a_packed_file_in_an_archive_is_measured_against_the_archive(small: None, tmp_path: Path) -> None:
    inner = gzip.compress(b"0" * 6 * 2**20, 1)
    assert len(inner) * 300 > 6 * 2**20
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as pack:
        pack.writestr("orders.csv.gz", inner)
    assert (tmp_path / "a.zip").stat().st_size * 300 < 6 * 2**20
    with pytest.raises(DataRefused, match="more than 300 times its size"):
        ZipSource().read(str(tmp_path / "a.zip"))


def test_packed_files_in_an_archive_count_together(small: None, tmp_path: Path) -> None:
    inner = gzip.compress(b"id\n" + b"0" * 3 * 2**20, 1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as pack:
        for number in range(60):
            pack.writestr(f"{number}.csv.gz", inner)
    with pytest.raises(DataRefused, match="more than 300 times its size"):
        ZipSource().read(str(tmp_path / "a.zip"))


def damaged_zip(offset: int, value: bytes, flags: bytes = b"\0\0") -> bytes:
    """Return a zip file of one CSV file with bytes of its central directory replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as pack:
        pack.writestr("orders.csv", "id\n1\n")
    data = bytearray(out.getvalue())
    at = data.index(b"PK\x01\x02")
    data[at + 8 : at + 10] = flags
    data[at + offset : at + offset + len(value)] = value
    return bytes(data)


DAMAGED = {
    "a version of the future": damaged_zip(6, b"\xff\0"),
    "a name that is no UTF-8": damaged_zip(46, b"\xff\xfe", b"\0\x08"),
    "an unknown method": damaged_zip(10, b"\x63\0"),
    "an encrypted file": damaged_zip(8, b"\x01\0", b"\x01\0"),
    "a size that is a lie": damaged_zip(24, b"\x02\0\0\0"),
    "a place that is a lie": damaged_zip(42, b"\xf0\xff\xff\x7f"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_zip_file_that_lies_is_refused_and_says_what_it_is(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(DAMAGED[name])
    assert detect_file_kind(file) in ("zip", "unknown")
    with pytest.raises(DataRefused, match="cannot be read"):
        ZipSource().read(str(file))
    with pytest.raises(ValueError, match="cannot be searched"):
        scrub_content("a.zip", DAMAGED[name], Person.of(["C-1"], b"k", erased=True))


# --- formulas

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "'=1",
    "''@a",
    "=",
    "-",
    "+49 30 1234",
    " =1",
    "\u00a0\u3000@SUM(A1)",
    "\ufeff=1",
    "\u200b+1+1",
    "' =1",
    " \t -2+3",
    "－2+3",
    "﹦1",
    "+٣",
]
PLAIN = ["", "a=b", "'", "'a", "5", "-5", " -5", "+5.20", "-1e-3 ", "mail@example.com", "2026-01-01", " a", "\u00a0"]


def test_a_text_is_no_formula_in_a_csv_file_and_comes_back_as_it_was() -> None:
    assert [escape_formula(text) for text in FORMULAS] == [f"'{text}" for text in FORMULAS]
    assert [escape_formula(text) for text in PLAIN] == PLAIN
    assert [unescape_formula(escape_formula(text)) for text in FORMULAS + PLAIN] == FORMULAS + PLAIN


@pytest.mark.parametrize("kind", ["object", "str", "category", pd.ArrowDtype(pa.large_string())])
def test_the_csv_sink_writes_no_formula_and_numbers_stay_numbers(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"name": FORMULAS, "score": [-1.5] * len(FORMULAS), "count": [-3] * len(FORMULAS)})
    frame["name"] = frame["name"].astype(kind)
    frame["day"] = pd.Timestamp("2026-01-01", tz="UTC")
    out = _File(tmp_path / "scored.csv", tmp_path / "draft")
    out.write(frame.head(4), 0)
    out.write(frame.iloc[4:], 4)
    out.finish()
    read = pd.read_csv(tmp_path / "scored.csv", dtype={"name": str}, keep_default_na=False)
    assert read["name"].tolist() == [f"'{text}" for text in FORMULAS]
    assert unescape_formulas(read)["name"].tolist() == FORMULAS
    assert read["score"].tolist() == [-1.5] * len(FORMULAS) and read["count"].dtype == "int64"
    assert "\n-" not in (tmp_path / "scored.csv").read_text() and ",-1.5,-3," in (tmp_path / "scored.csv").read_text()
    assert list(escape_formulas(pd.DataFrame({"=a": [1], " @b": [2], "c": [3]}))) == ["'=a", "' @b", "c"]


@pytest.mark.parametrize("text", ["x;=1+1", "x\t=1+1", 'x";=1+1', ";-2+3", "a\r=1"])
def test_a_formula_behind_a_sign_that_splits_elsewhere_stays_inside_its_cell(tmp_path: Path, text: str) -> None:
    frame = pd.DataFrame({"name": ["plain", text], "score": [-1.5, 2.0]})
    content = csv_text(escape_formulas(frame))
    for delimiter in (";", "\t"):
        rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
        assert not any(cell.startswith(("=", "-2")) for row in rows for cell in row)
    out = _File(tmp_path / "scored.csv", tmp_path / "draft")
    out.write(frame, 0)
    out.finish()
    assert (tmp_path / "scored.csv").read_bytes().decode() == content
    assert unescape_formulas(pd.read_csv(tmp_path / "scored.csv"))["name"].tolist() == ["plain", text]
    _write_csv([{"id": text}], tmp_path / "runs.csv")
    assert f'"{escape_formula(text).replace(chr(34), chr(34) * 2)}"' in (tmp_path / "runs.csv").read_bytes().decode()


def test_runs_that_are_exported_hold_no_formula(tmp_path: Path) -> None:
    _write_csv([{"id": "r1", "error": "=HYPERLINK(1)", "parameters.a": "@x", "seconds": -1.5}], tmp_path / "runs.csv")
    read = pd.read_csv(tmp_path / "runs.csv")
    assert (read["error"][0], read["parameters.a"][0], read["seconds"][0]) == ("'=HYPERLINK(1)", "'@x", -1.5)


# --- links and passwords


def test_a_copy_takes_nothing_that_lies_outside_the_folder(tmp_path: Path) -> None:
    secret = tmp_path / "home" / "id_rsa"
    secret.parent.mkdir()
    secret.write_text("PRIVATE")
    source = tmp_path / "package"
    (source / "deep").mkdir(parents=True)
    (source / "a.py").write_text("a = 1")
    (source / "b.ipynb").write_text("{}")
    for name, target in {
        "key": secret,
        "home": secret.parent,
        "up": Path("../home/id_rsa"),
        "deep/up": Path("../../home"),
        "gone": tmp_path / "nothing",
        "same.py": Path("a.py"),
    }.items():
        (source / name).symlink_to(target)
    copy_inside(source, tmp_path / "copy", "*.ipynb")
    found = sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*"))
    assert found == ["a.py", "deep", "same.py"]
    assert not any(path.is_symlink() for path in (tmp_path / "copy").rglob("*"))


SECRETS = {
    "https://jo:Winter-2019@hooks.example/take": "https://hooks.example/take",
    "https://hooks.example/take?token=abc123&x=1#f": "https://hooks.example/take",
    "https://hooks.example:8443/services/T00/xoxb1234567890abcdef": "https://hooks.example:8443/services/T00/***",
    "https://Winter-2019@[::1]/a": "https://[::1]/a",
    "https://hooks.example:port@x/Winter-2019-secret": "https://x/***",
    "https://[broken/Winter-2019": "https://***",
}


@pytest.mark.parametrize("url", SECRETS)
def test_an_address_is_shown_without_its_passwords(url: str) -> None:
    assert masked_url(url) == SECRETS[url]


@pytest.mark.parametrize(
    "url",
    [
        "http://jo:Winter-2019@127.0.0.1:1/a",
        "http://127.0.0.1:Winter-2019/a",
        "http://127.0.0.1:1/Winter-2019 \n",
        "http://127.0.0.1:1/a?key=Winter-2019",
    ],
)
def test_a_call_that_fails_repeats_no_password(url: str) -> None:
    said = post_once(url, b"{}", {"authorization": "Bearer Winter-2019"}, timeout=2.0)
    assert said.away and said.what and "Winter" not in said.what


def test_a_password_in_an_address_is_sent_as_a_header() -> None:
    assert split_credentials("https://jo:a%40b@x.example/p?q=1", {}) == (
        "https://x.example/p?q=1",
        {"authorization": "Basic am86YUBi"},
    )
    assert split_credentials("https://jo@x.example/p", {"authorization": "Bearer t"})[1] == {
        "authorization": "Bearer t"
    }


def test_an_open_line_is_refused_without_the_password() -> None:
    with pytest.raises(UsageError) as err:
        check_encrypted("http://jo:Winter-2019@hooks.example/a?token=Winter-2019")
    assert "Winter" not in str(err.value) and "hooks.example" in str(err.value)
    for name in ("api_key", "sig", "client_secret", "access_token", "auth"):
        assert "Winter" not in without_password(f"https://x.example/a?a=1&{name}=Winter-2019")


LEAKS = [
    "https://u:a@S3cr3tZ@h/p", "https://u:a/S3cr3tZ@h/p", "https://S3cr3tZ@h/p", "https://h/p?code=S3cr3tZ", "https://h/p?S3cr3tZ",
    "https://h/p#S3cr3tZ", "https://h/services/T00/S3cr3tZ-12345", " https://u:S3cr3tZ@h/p", "HTTPS://u:S3cr3tZ@h/p",
    "postgresql://u:a@S3cr3tZ@h/d", "postgresql://h/d?options=S3cr3tZ", "snowflake://h/d?private_key_passphrase=S3cr3tZ",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3DS3cr3tZ", "mssql+pyodbc:///?odbc_connect=DRIVER=x;UID=u;PWD=S3cr3tZ",
    "bigquery://p/d?credentials_base64=S3cr3tZ", "postgresql://u:x@h/d::orders?token=S3cr3tZ", "postgresql://u:S3cr3tZ@[::1/d",
    "jdbc:postgresql://h/d?user=u&password=S3cr3tZ", "postgresql://h/d?PASSWORD=S3cr3tZ", "s3://AKIA:S3cr3tZ@bucket/x",
]  # fmt: skip


@pytest.mark.parametrize("url", LEAKS)
def test_no_form_of_an_address_shows_its_secret(url: str) -> None:
    shown = without_password(url)
    assert "S3cr3tZ" not in shown and "S3cr3tZ" not in masked_url(url)
    assert without_password(shown) == shown


def test_what_is_public_of_an_address_is_shown() -> None:
    address = "postgresql+psycopg://ann:***@db.example/shop?application_name=d2c&sslmode=require::eu.orders"
    assert without_password(address.replace("***", "Winter-2019")) == address
    assert without_password("https://hooks.example/take") == "https://hooks.example/take"
    assert without_password("postgresql://ann@db/shop") == "postgresql://ann@db/shop"
    assert without_password("data/orders.csv") == "data/orders.csv"


def test_an_error_of_a_driver_is_repeated_without_the_secrets_of_the_address() -> None:
    location = "postgresql://u:Winter-2019@h/d?sslpassword=Summer-2020&sslmode=require"
    text = parquet._without_secrets("invalid: Winter-2019 and Summer-2020, mode require", location)
    assert text == "invalid: *** and ***, mode require"


# --- keys


def test_an_emptied_file_of_keys_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK", 0.0)
    file = tmp_path / "keys.json"
    ring = keys.Keyring(file)
    client = asking(ServiceContext(keyring=ring))

    def status(token: str = "") -> int:
        head = {"authorization": f"Bearer {token}"} if token else {}
        return client.post("/predict", json={"records": [ASK]}, headers=head).status_code

    assert status() == 200  # no file: nobody needs a key
    token = keys.create_key(file, "crm", ["leads"], now=datetime(2026, 1, 1, tzinfo=UTC))[1]
    assert (status(), status(token)) == (401, 200)
    for emptied in ('{"keys": []}', "", "{}", "[]", '{"keys": null}'):
        file.write_text(emptied)
        assert status() == 401, emptied
    file.unlink()
    assert status() == 401


def test_a_service_that_starts_with_an_emptied_file_of_keys_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"keys": []}')
    client = asking(ServiceContext(keyring=keys.Keyring(file)))
    assert client.post("/predict", json={"records": [ASK]}).status_code == 401


def ring_with_key(folder: Path) -> tuple[keys.Keyring, Path, str]:
    file = folder / "keys.json"
    token = keys.create_key(file, "crm", ("leads",), now=datetime.now(UTC))[1]
    return keys.Keyring(file), file, token


def test_a_link_to_a_file_of_keys_that_is_not_there_yet_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.symlink_to(tmp_path / "mounted later" / "keys.json")
    assert keys.Keyring(file).requires_keys()
    assert not keys.Keyring(tmp_path / "none.json").requires_keys()


def test_a_file_of_keys_that_is_replaced_at_its_former_time_is_read_again(tmp_path: Path) -> None:
    ring, file, token = ring_with_key(tmp_path)
    before = file.stat()
    file.write_text('{"keys": []}')
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    ring.reload_if_changed()
    assert ring.key_of_token(token, datetime.now(UTC)) == (None, "wrong key") and ring.requires_keys()


@pytest.mark.parametrize(
    "change",
    [
        {"models": "*"}, {"scopes": "decide"}, {"models": [None]}, {"sha256": None}, {"sha256": "\u00e9" * 64}, {"sha256": ""},
        {"expires_at": "soon"}, {"expires_at": "2027-01-01T00:00:00"}, {"revoked_at": 5}, {"more": 1},
    ],
)  # fmt: skip
def test_a_key_that_would_fail_or_permit_more_than_it_says_is_refused_when_it_is_read(
    tmp_path: Path, change: dict[str, object]
) -> None:
    ring, file, token = ring_with_key(tmp_path)
    (entry,) = json.loads(file.read_text())["keys"]
    file.write_text(json.dumps({"keys": [entry | change]}))
    with pytest.raises(UsageError, match="not an API key file"):
        keys.Keyring(file)
    ring.reload_if_changed()
    assert ring.damaged and ring.key_of_token(token, datetime.now(UTC))[1] is None


def test_a_deeply_nested_file_of_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"keys": ' + "[" * 200_000)
    with pytest.raises(UsageError, match="not an API key file"):
        keys.Keyring(tmp_path / "keys.json")
