from pathlib import Path

import pytest

from d2c_mlops.errors import SettingsError
from d2c_mlops.settings import find_settings_file, load_settings, service_settings
from d2c_mlops.settings.parsing import parse_age, parse_size


@pytest.fixture
def ini(tmp_path: Path):
    def write(text: str) -> Path:
        (tmp_path / "settings.ini").write_text(text)
        return tmp_path

    return write


def test_defaults_hold_in_an_empty_folder(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})
    assert settings.store == tmp_path / "d2c_store"
    assert settings.ledger == f"sqlite:///{tmp_path}/d2c_store/ledger.db"


@pytest.mark.parametrize(
    "store", ["~nobody-of-this-name", "~nobody-of-this-name/d2c_store", "~d2c_store\nrun_slots = 2"]
)
def test_a_store_in_the_home_of_a_user_who_does_not_exist_is_refused(ini, store: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(ini(f"[d2c]\nstore = {store}\n"), environ={})
    assert refusal.value.failures[0].where == "[d2c] store" and "no home folder" in refusal.value.failures[0].what


def test_a_store_in_the_own_home_is_found(ini, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_settings(ini("[d2c]\nstore = ~/shop\n"), environ={}).store == tmp_path / "home/shop"


def test_command_line_beats_environment_beats_file(ini) -> None:
    root = ini("[d2c]\nstore = a\nrun_timeout = 5\nlock_wait = 1\n")
    settings = load_settings(root, {"store": "c"}, {"D2C_STORE": "b", "D2C_RUN_TIMEOUT": "7"})
    assert (settings.store, settings.run_timeout, settings.lock_wait) == (root / "c", 7.0, 1.0)


def test_settings_are_found_from_a_folder_below(ini) -> None:
    root = ini("[d2c]\nstore = here\n")
    (root / "nbs" / "models").mkdir(parents=True)
    assert load_settings(root / "nbs" / "models", environ={}).store == root / "here"


def test_a_settings_file_of_another_tool_is_passed_over(ini) -> None:
    root = ini("[d2c]\n")
    (root / "sub").mkdir()
    (root / "sub" / "settings.ini").write_text("[DEFAULT]\nlib = x\n")
    assert load_settings(root / "sub", environ={}).root == root


def test_unknown_keys_and_sections_are_all_named_with_the_nearest_right_one(ini) -> None:
    root = ini("[d2c]\nstor = a\nrun_timeout = soon\n[modle:demand]\nx = 1\n[model:demand]\ndta = sample\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(root, environ={})
    text = str(caught.value)
    assert "[d2c] stor: unknown key; did you mean 'store'?" in text
    assert "'soon' is not of type float" in text
    assert "[modle:demand]: unknown section; did you mean 'model:NAME'?" in text
    assert "[model:demand] dta: unknown key; did you mean 'data'?" in text
    assert caught.value.exit_code == 2


def test_model_sections_carry_parameters_and_charter(ini) -> None:
    root = ini("[d2c]\n[model:demand]\ndata = sample\nparams.horizon = 28\ncharter.owner = Jo\n")
    model = load_settings(root, environ={}).model("demand")
    assert (model.data, dict(model.params), dict(model.charter)) == (
        "sample",
        {"horizon": "28"},
        {"owner": "Jo"},
    )
    assert model.contract == "demand"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        load_settings(tmp_path, environ={}).store = Path("x")  # type: ignore[misc]


def test_a_variable_may_name_a_file_instead_and_one_that_is_missing_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    file.write_text("sqlite:///here.db\n")
    assert load_settings(tmp_path, environ={"D2C_LEDGER_URL_FILE": str(file)}).ledger_url == "sqlite:///here.db"
    both = {"D2C_LEDGER_URL": "sqlite:///there.db", "D2C_LEDGER_URL_FILE": str(file)}
    assert load_settings(tmp_path, environ=both).ledger_url == "sqlite:///there.db"
    file.unlink()
    with pytest.raises(SettingsError) as told:
        load_settings(tmp_path, environ={"D2C_LEDGER_URL_FILE": str(file)})
    assert told.value.failures[0].where == "D2C_LEDGER_URL_FILE"
    with pytest.raises(SettingsError, match="service"):
        service_settings({"D2C_SERVICE_LOG_SECRET_FILE": str(file)})


@pytest.mark.parametrize("section", ["schedule:report", "model:demand", "data:shop", "decisions:price"])
def test_a_file_with_only_a_section_of_a_name_is_no_other_programs(tmp_path: Path, section: str) -> None:
    needed = {"schedule": "run = train\nat = hourly\n", "decisions": "field = price\n"}.get(
        section.partition(":")[0], ""
    )
    (tmp_path / "settings.ini").write_text(f"[{section}]\n{needed}")
    (tmp_path / "inner").mkdir()
    assert load_settings(tmp_path / "inner", environ={}).root == tmp_path


def test_a_file_of_another_program_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = shop\n")
    assert load_settings(tmp_path, environ={}).jobs == {} and find_settings_file(tmp_path) is None


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_bytes("[d2c]\nstore = lager für zwölf\n".encode("utf-8-sig"))
    assert load_settings(tmp_path, environ={}).store == tmp_path / "lager für zwölf"


@pytest.mark.parametrize(
    "text",
    [
        "store = \0shop",
        "store = a\0",
        "data = a\0b",
        "[model:a]\nparams.x = \0",
        "# \0",
        "[schedule:a]\nrun = a\0.ipynb",
    ],
)
def test_a_null_character_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_bytes(b"[d2c]\n" + text.encode())
    with pytest.raises(SettingsError, match=f"settings.ini, line {2 + text.count(chr(10))}.*null character"):
        load_settings(tmp_path, environ={})


def test_a_null_character_in_the_file_of_a_variable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\n")
    (tmp_path / "store.txt").write_bytes(b"a\0b")
    with pytest.raises(SettingsError, match="null character"):
        load_settings(tmp_path, environ={"D2C_STORE_FILE": str(tmp_path / "store.txt")})


@pytest.mark.parametrize("name", ["n" * 5_000, "a/" * 3_000, "\u00e4" * 200])
def test_a_store_that_no_folder_can_have_the_name_of_is_read_or_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text(f"[d2c]\nstore = {name}\n", encoding="utf-8")
    assert str(load_settings(tmp_path, environ={}).store).endswith(name[-100:].rstrip("/"))


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "the file is UTF-16"), ("cp1252", "the file is not UTF-8")])
def test_a_file_in_another_encoding_is_refused_with_its_place(tmp_path: Path, encoding: str, said: str) -> None:
    (tmp_path / "settings.ini").write_bytes("[d2c]\nstore = lager für\n".encode(encoding))
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings(tmp_path, environ={})
    assert str(tmp_path / "settings.ini") in caught.value.where and "UTF-8" in caught.value.next


def test_a_file_that_may_not_be_read_is_an_error_of_the_settings(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\n")

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(SettingsError, match="Permission denied"):
        load_settings(tmp_path, environ={})


@pytest.mark.parametrize("text", ["9" * 400 + "d", "99999999999h", "36526d", "²d", "9" * 5000 + "s"])
def test_an_age_that_no_calendar_has_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_age(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "TB", "1" + "0" * 30 + "GiB", "1.2.3", "²MB"])
def test_a_size_that_no_machine_has_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_ages_and_sizes_up_to_their_limits_are_read() -> None:
    assert (
        parse_age("36525d") == 36_525 * 86_400
        and parse_age("0000000001d") == 86_400
        and parse_size("1024PB"[:4] + "TB") == 1024 * 10**12
    )


@pytest.mark.parametrize(
    "line", ["[d2c]\nrun_memory = {}", "[decisions:price]\nfield = price\nauto = price < 3\ndeadline = {}h"]
)
def test_a_number_without_end_in_a_file_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    (tmp_path / "settings.ini").write_text(f"{line.format('9' * 400)}\n")
    with pytest.raises(SettingsError, match=r"(?s)settings.ini.*(run_memory|deadline)"):
        load_settings(tmp_path, environ={})


@pytest.mark.parametrize(
    "line",
    [
        "false_alarms = 0", "false_alarms = 5", "false_alarms = nan", "error = nan", "error = inf", "error = -1", "days = 0", "days = -4",
        "cost_over = -0.1", "cost_over = nan", "confidence = 1.5", "throughput_drop = 2", "latency_ms = 0",
    ],
)  # fmt: skip
def test_a_threshold_that_nothing_or_everything_passes_is_refused(ini, line: str) -> None:
    for text, where in (
        (f"[monitor]\n{line}\n", "[monitor] "),
        (f"[model:demand]\nmonitor.{line}\n", "[model:demand] monitor."),
    ):
        with pytest.raises(SettingsError) as refusal:
            load_settings(ini(text), environ={})
        assert [failure.where for failure in refusal.value.failures] == [where + line.split()[0]]


def test_thresholds_that_mean_something_are_taken(ini) -> None:
    settings = load_settings(ini("[monitor]\nfalse_alarms = 0.01\ncost_over = 0\ndays = 7\nerror = 0.9\n"), environ={})
    assert (settings.monitor.false_alarms, settings.monitor.cost_over, settings.monitor.days) == (0.01, 0.0, 7)
