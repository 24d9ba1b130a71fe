import base64
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pytest

from d2c_mlops.errors import NotebookFailed, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.parameters.parameters import to_source
from d2c_mlops.runs.secrets.redaction import encoded_forms, replace_texts
from d2c_mlops.runs.secrets.secrets import secret
from d2c_mlops.settings import load_settings
from support.notebooks import write

TOKEN, PASSWORD = 'pa"ss w&rd<1>', "file-secret-42"
SHOW = """
import base64, os, sys, json
from IPython.display import HTML, display
from urllib.parse import quote
from d2c_mlops.runs.secrets.secrets import secret
from d2c_mlops.runs.recording import record
other = secret("SHOP_PASSWORD")
for each in (token, other):
    print(each, repr(each), json.dumps(each), quote(each), base64.b64encode(each.encode()).decode())
    display(HTML(each))
    os.write(2, (each + "\\n").encode())
sys.stdout.write(token[:5]); sys.stdout.flush(); sys.stdout.write(token[5:] + "\\n")
record(length=len(token), url=f"https://u:{token}@shop", deep={"other": [other]})
"""


def test_a_secret_reaches_the_notebook_and_nothing_else(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "private").mkdir()
    (project / "private" / "SHOP_PASSWORD").write_text(PASSWORD + "\n")
    text = (project / "settings.ini").read_text().replace("[d2c]\n", "[d2c]\nsecrets = private\n")
    (project / "settings.ini").write_text(text)
    monkeypatch.setenv("D2C_SECRET_SHOP_TOKEN", TOKEN)
    write(project / "nb.ipynb", "token: str = ''", SHOW, "raise ValueError(f'{token} and {other} are wrong')")
    held = load_settings(project)
    with pytest.raises(NotebookFailed) as caught:
        run("nb.ipynb", {"token": "secret:SHOP_TOKEN"}, held)
    (row,) = latest_runs(Ledger.of(held))
    assert row.recorded["length"] == len(TOKEN) and row.parameters == {"token": "secret:SHOP_TOKEN"}
    assert row.recorded["url"] == "https://u:[secret:SHOP_TOKEN]@shop"
    assert "[secret:SHOP_TOKEN] and [secret:SHOP_PASSWORD] are wrong" in str(caught.value)
    written = [f for f in held.store.rglob("*") if f.is_file()]
    assert {"output.ipynb", "output.html", "log.txt", "events.jsonl", "ledger.db"} <= {f.name for f in written}
    for value in (TOKEN, PASSWORD):
        for form in (value, repr(value)[1:-1], quote(value), base64.b64encode(value.encode()).decode()):
            assert [f.name for f in written if form.encode() in f.read_bytes()] == []


def test_a_secret_that_nobody_has_is_refused_before_anything_starts(project: Path) -> None:
    write(project / "nb.ipynb", "token: str = ''")
    held = load_settings(project)
    with pytest.raises(UsageError, match="secret 'NOWHERE' is not defined"):
        run("nb.ipynb", {"token": "secret:NOWHERE"}, held)
    assert not (held.store / "runs").exists()


def test_only_a_whole_reference_is_looked_up() -> None:
    assert to_source({"a": "secret:X"}).count(".secret('X')") == 1
    for text in ("secret:X and more", "the secret:X", "secret:", "secret:X'); print('"):
        assert to_source(text) == repr(text)


def test_all_ways_to_write_a_secret_are_found() -> None:
    known = encoded_forms({"N": TOKEN, "SHORT": "ab"})
    for text in (TOKEN, repr(TOKEN), quote(TOKEN, safe=""), base64.b64encode(TOKEN.encode()).decode()):
        assert "[secret:N]" in replace_texts(f"<<{text}>>", known) and TOKEN not in replace_texts(text, known)
    assert replace_texts({"a": ["ab", TOKEN, 3]}, known) == {"a": ["ab", "[secret:N]", 3]}


def test_the_keyring_is_asked_last(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    trouble = ModuleType("keyring.errors")
    trouble.KeyringError = type("KeyringError", (Exception,), {})

    def get_password(service: str, name: str) -> str | None:
        asked.append((service, name))
        if name == "LOCKED":
            raise trouble.KeyringError("locked")
        return {"CRM": "from the keyring"}.get(name)

    ring = ModuleType("keyring")
    ring.get_password, ring.errors = get_password, trouble
    monkeypatch.setitem(sys.modules, "keyring", ring)
    monkeypatch.setitem(sys.modules, "keyring.errors", trouble)
    monkeypatch.setenv("D2C_SECRET_SHOP", "from the environment")
    assert (secret("SHOP"), secret("CRM")) == ("from the environment", "from the keyring")
    assert asked == [("d2c_mlops", "CRM")]
    for name in ("LOCKED", "NOWHERE"):
        with pytest.raises(UsageError, match=f"secret '{name}' is not defined"):
            secret(name)
