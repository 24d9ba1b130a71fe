"""Foreign code in a container: what the engine is asked for, what is refused, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.convert.convert import convert
from d2c_mlops.convert.run import container_init, container_pool, containers, isolation
from d2c_mlops.convert.run.containers import CODE, PREFIX, ContainerImage, isolating_image
from d2c_mlops.convert.run.isolated_run import Child, ChildLimits, Stopped, run_program
from d2c_mlops.convert.run.session import Session
from d2c_mlops.errors import UsageError
from d2c_mlops.settings import load_settings

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
import hostile

IMAGE = "shop/notebooks:1"
PODMAN = shutil.which("podman") is not None and hostile.engine()
# Stands for an engine: it knows one image, and runs the first process on this machine, isolated by nothing.
ENGINE = """#!{python}
import json, os, sys
words = sys.argv[1:]
open({log!r}, "a").write(json.dumps(words) + "\\n")
if words[0] == "info":
    sys.exit(print("cannot connect to the daemon", file=sys.stderr) or {info})
if words[:2] == ["image", "inspect"]:
    sys.exit(words[2] != {image!r})
if words[0] == "run":
    at = words.index({image!r})
    mounts = [dict(part.split("=", 1) for part in each[8:].split(",") if "=" in part) for each in words if each.startswith("--mount=")]
    places = {{each["target"]: each["source"] for each in mounts if each["target"].startswith("/work/")}} | {{'"PYTHONPATH": "' + {code!r}: '"PYTHONPATH": "' + {root!r}}}
    code = ["import sys", "sys.path.insert(0, sys.argv[1])", "import container_init as c, json", "real = c.json.loads", "def read(data):",
            "    text = data.decode()", "    for inner, outer in %r.items():" % places, "        text = text.replace(inner, outer)",
            "    return real(text)", "c.json.loads = read", "c.main()"]
    folder = os.path.dirname(words[at + 3].replace({code!r}, {root!r}))
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", chr(10).join(code), folder], {{"PATH": os.defpath, "IMAGE": "1"}})
"""


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Put engines of that name first on the search path, and no others; return the file that lists their calls."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    isolating_image.cache_clear()

    def make(*names: str, info: int = 0) -> Path:
        log = tmp_path / "calls"
        for name in names:
            root = str(Path(containers.PACKAGE).parent)
            text = ENGINE.format(python=sys.executable, log=str(log), info=info, image=IMAGE, root=root, code=CODE)
            (tmp_path / "bin" / name).write_text(text)
            (tmp_path / "bin" / name).chmod(0o755)
        return log

    yield make
    container_pool.close_waiting_containers()
    isolating_image.cache_clear()


def command(folder: Path, options: tuple[str, ...] = ()) -> list[str]:
    mounts = [("/srv/data, old", "/srv/data, old", False), (str(folder), "/work/notebook", True)]
    return ContainerImage("docker", IMAGE, options).command(mounts, name="d2c-1", memory=1000, processes=9)


def test_the_engine_is_asked_for_isolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "geheim")
    monkeypatch.setenv("HTTPS_PROXY", "http://shop:geheim@proxy")
    line = command(tmp_path)
    for wanted in ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--rm", "--pull=never", "--ipc=private",
                   "--env=HTTPS_PROXY=", "--env=https_proxy="):  # fmt: skip
        assert wanted in line
    assert "geheim" not in str(line) and not [
        each for each in line if each in ("--privileged", "--pid=host", "--ipc=host")
    ]


@pytest.mark.parametrize(
    ("engine", "info", "user"),
    [("docker", "[name=seccomp]", f"{os.getuid()}:{os.getgid()}"), ("docker", "[name=seccomp name=rootless]", "0:0"),
     ("podman", "", f"{os.getuid()}:{os.getgid()}")],
)  # fmt: skip
def test_it_runs_as_the_user_who_converts(engine: str, info: str, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_run_engine", lambda *words: subprocess.CompletedProcess(words, 0, info, ""))
    limited, plain = containers._candidate_options(engine)
    assert f"--user={user}" in plain and set(limited) - set(plain) == {"--memory={memory}", "--pids-limit={processes}"}
    assert ("--http-proxy=false" in plain) == (engine == "podman")


def test_only_the_copy_can_be_written(tmp_path: Path) -> None:
    mounts = [each for each in command(tmp_path) if each.startswith("--mount=")]
    writable = [each for each in mounts if not each.endswith(",readonly")]
    assert writable == [f"--mount=type=bind,source={os.path.realpath(tmp_path)},target=/work/notebook"]
    assert '--mount=type=bind,"source=/srv/data, old","target=/srv/data, old",readonly' in mounts
    assert (
        f"--mount=type=bind,source={containers.PACKAGE},target={CODE}/d2c_mlops,readonly" in mounts and len(mounts) == 3
    )


def test_limits_are_handed_on(tmp_path: Path) -> None:
    line = command(tmp_path, ("--memory={memory}", "--pids-limit={processes}"))
    assert f"--memory={1000 + containers.ROOM}" in line and "--pids-limit=25" in line


@pytest.mark.parametrize(("names", "info"), [((), 0), (("docker",), 1), (("docker", "podman"), 1)])
def test_without_an_engine_that_works_the_reasons_are_told(
    engines: Callable[..., Path], names: tuple[str, ...], info: int
) -> None:
    engines(*names, info=info)
    with pytest.raises(UsageError) as refused:
        isolating_image(IMAGE)
    told = str(refused.value)
    assert "neither docker nor podman works" in told and "--trust" in told
    for name in ("docker", "podman"):
        assert f"{name}: {'cannot connect to the daemon' if name in names else 'not installed'}" in told


@pytest.mark.parametrize("names", [("docker",), ("podman",), ("docker", "podman")])
def test_an_image_that_is_not_there_is_not_pulled(engines: Callable[..., Path], names: tuple[str, ...]) -> None:
    log = engines(*names)
    with pytest.raises(UsageError, match=r"the image other:2 is not available") as refused:
        isolating_image("other:2")
    assert refused.value.next.startswith(f"{names[0]} pull other:2")
    assert all(json.loads(line)[0] in ("info", "image") for line in log.read_text().splitlines())


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_an_engine_that_only_pretends_is_refused(engines: Callable[..., Path], name: str) -> None:
    engines(name)
    with pytest.raises(UsageError, match="does not isolate on this machine") as refused:
        isolation.find_mode(f"{PREFIX}{IMAGE}")
    assert "privileges" in refused.value.what


def test_an_image_without_the_libraries_is_refused(
    engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines("docker")
    monkeypatch.setattr(containers, "MODULES", (*containers.MODULES, "no_such_library"))
    monkeypatch.setattr(
        containers, "CHECK", containers.CHECK.replace('with open("answer', 'found["open"] = []\nwith open("answer')
    )
    with pytest.raises(UsageError, match="lacks required packages: no_such_library") as refused:
        isolating_image(IMAGE)
    assert containers.BUILD in refused.value.next


def test_other_versions_in_the_image_are_told() -> None:
    here = tuple((name, containers._engine_version(name)) for name in containers.LIBRARIES)
    assert ContainerImage("docker", IMAGE, (), here).differences == []
    other = tuple((name, "0.1" if name == "pandas" else version) for name, version in here if name != "scipy")
    told = ContainerImage("docker", IMAGE, (), other).differences
    assert [each.split(" in the image")[0] for each in told] == ["pandas 0.1", "scipy missing"]


@pytest.fixture
def trusted(engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> ChildLimits:
    """Limits of a mode that runs through the engine, whose isolation is taken for granted."""
    engines("docker")
    monkeypatch.setattr(
        containers, "_check_image", lambda trial: ({"missing": [], "open": [], "versions": {}, "python": "3"}, "")
    )
    return ChildLimits(60.0, 1 << 30, f"{PREFIX}{IMAGE}")


def test_cells_run_through_the_standard_streams(
    trusted: ChildLimits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "geheim")
    (tmp_path / "here").mkdir()
    with Session(tmp_path / "here", tmp_path / "home", trusted, proof=True) as session:
        shown = str(
            session.run(
                1, "import os, sys\nos.write(1, b'noise')\nprint(sys.stdin.read(), dict(os.environ))\nx = 3"
            ).outputs
        )
        assert "geheim" not in shown and "IMAGE" not in shown and "'HOME'" in shown
        assert str(session.run(2, "print(x * 7)").outputs[0]["text"]) == "21\n"
        assert b'"x"' in session.snapshot(["x"])
        assert session.run(3, "1/0").error is not None
    assert session.process.poll() is not None


@pytest.mark.parametrize(("code", "status", "says"), [("pass", "done", "0"), ("raise SystemExit(3)", "failed", "exit code 3"),
                                                      ("import os; os.kill(os.getpid(), 9)", "failed", "SIGKILL")])  # fmt: skip
def test_programs_end_as_elsewhere(trusted: ChildLimits, tmp_path: Path, code: str, status: str, says: str) -> None:
    (tmp_path / "here").mkdir()
    ended = run_program([sys.executable, "-c", code], tmp_path / "here", tmp_path / "home", trusted)
    assert ended.status == status and says in ended.says


def test_a_program_that_does_not_end_is_ended(trusted: ChildLimits, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    began = time.monotonic()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ended = run_program(sleep, tmp_path / "here", tmp_path / "home", ChildLimits(1.0, 1 << 30, trusted.isolation))
    assert ended.status == "timeout" and time.monotonic() - began < 15


def test_what_an_engine_leaves_in_its_working_folder_is_not_left_in_yours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    note = tmp_path / "elsewhere" / "note"
    note.parent.mkdir()
    line = ["sh", "-c", f"touch oom; pwd > {note}; cat > /dev/null"]
    container = container_pool.RunningContainer(line, "notebook", lambda name: None)
    container.close(10.0)
    container.listener.join(10.0)
    folder = Path(note.read_text().strip())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"] and folder != tmp_path
    assert not folder.exists()


class FirstProcess:
    """The first process of a container, in namespaces of processes, memory and the network of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        line = ["bwrap", "--ro-bind", "/", "/", "--bind", str(folder), str(folder), "--unshare-all", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev",
                "--tmpfs", "/dev/shm", "--die-with-parent", "--as-pid-1", "--"]  # fmt: skip
        line += [sys.executable, "-I", "-S", container_init.__file__]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = 0

    def start(self, code: str, **limits: object) -> None:
        (self.folder / "mark").touch()
        spec = {"command": ["python3", "-c", code], "environment": {}, "folder": str(self.folder), "mark": "mark", "pipes": True,
                "seconds": 30.0, "memory": 300 << 20, "file_size": 1 << 20, "processes": 20, **limits}  # fmt: skip
        self.number += 1
        self.send(b"R", json.dumps(spec).encode())

    def send(self, kind: bytes, data: bytes = b"") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(container_init.HEAD.pack(kind, self.number, len(data)) + data)
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """The exit code of the run, what it left behind, and what it wrote."""
        assert self.process.stdout is not None
        shown = b""
        while head := self.process.stdout.read(container_init.HEAD.size):
            kind, number, size = container_init.HEAD.unpack(head)
            data = self.process.stdout.read(size)
            assert number == self.number
            shown += data if kind == b"O" else b""
            if kind == b"X":
                told = json.loads(data)
                return told["code"], told["left"], shown.decode()
        return -1, "the container ended", shown.decode()

    def run(self, code: str, **limits: object) -> tuple[int, str, str]:
        self.start(code, **limits)
        return self.end()


@pytest.fixture
def first(tmp_path: Path) -> Iterator[FirstProcess]:
    made = FirstProcess(tmp_path)
    yield made
    assert made.process.stdin is not None and made.process.stdout is not None
    made.process.stdin.close()
    made.process.wait(10)
    made.process.stdout.close()


NAMESPACES = pytest.mark.skipif(not isolation.mode_works("bubblewrap"), reason="namespaces are made by bubblewrap here")


@NAMESPACES
@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("x = b'x' * (600 << 20)\nimport time; time.sleep(20)", container_init.MEMORY),
        (
            "import os, time\nif os.fork() == 0: os.setsid()\nx = b'x' * (200 << 20)\ntime.sleep(20)",
            container_init.MEMORY,
        ),
        (
            "import subprocess as s, time\nall = [s.Popen(['sleep', '20']) for _ in range(40)]\ntime.sleep(20)",
            container_init.PROCESSES,
        ),
        ("open('large', 'wb').write(b'x' * (2 << 20))", 1),
        ("import os; os.kill(os.getpid(), 11)", 139),
        ("import os\nif os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(20)", 0),
    ],
)
def test_the_first_process_keeps_the_limits(first: FirstProcess, code: str, exit_code: int) -> None:
    began = time.monotonic()
    assert first.run(code)[0] == exit_code and time.monotonic() - began < 15
    assert first.run("print('alive')") == (0, "", "alive\n")


@NAMESPACES
def test_the_first_process_ends_with_its_caller_or_a_run_with_its_time(first: FirstProcess) -> None:
    assert first.run("import time; time.sleep(30)", seconds=0.1 - container_init.GRACE)[0] == container_init.LATE
    first.start("import time; time.sleep(30)")
    with pytest.raises(subprocess.TimeoutExpired):
        first.process.wait(0.5)
    assert first.process.stdin is not None
    first.process.stdin.close()
    assert first.process.wait(10) == 0


LEFT_OVERS = {
    "a process": "import os\nif os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(60)",
    "a file": "open('/dev/shm/x', 'w').write('x')",
    "a folder nobody may read": "import os\nos.makedirs('/dev/shm/a/b')\nos.chmod('/dev/shm/a/b', 0)\nos.chmod('/dev/shm/a', 0)",
    "a link": "import os; os.symlink('/etc', '/dev/shm/x')",
    "shared memory": "import ctypes; assert ctypes.CDLL(None).shmget(7, 4096, 0o1600) >= 0",
    "a semaphore": "import ctypes; assert ctypes.CDLL(None).semget(7, 1, 0o1600) >= 0",
    "a message queue": "import ctypes; assert ctypes.CDLL(None).msgget(7, 0o1600) >= 0",
}
LOOK_AROUND = """
import os
found = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, os.getpid())]
found += os.listdir("/dev/shm") + os.listdir("/dev")
for kind in ("shm", "sem", "msg"):
    found += open("/proc/sysvipc/" + kind).read().splitlines()[1:]
print(sorted(found), os.sched_getaffinity(0), os.getpriority(0, 0))
"""


@NAMESPACES
@pytest.mark.parametrize("what", LEFT_OVERS)
def test_nothing_of_a_run_is_there_in_the_next(first: FirstProcess, what: str) -> None:
    before = first.run(LOOK_AROUND)
    assert first.run(LEFT_OVERS[what])[:2] == (0, "")
    assert first.run(LOOK_AROUND) == before


# What cannot be undone is told: the container is not used again.
CHANGES = {
    "the limits of the first process": "import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (64, 64))",
    "its priority": "import os; os.setpriority(os.PRIO_PROCESS, 1, 5)",
    "its scheduler": "import os; os.sched_setscheduler(1, os.SCHED_BATCH, os.sched_param(0))",
    "a port that is taken for a while": (
        "import socket as s\na = s.create_server(('127.0.0.1', 0))\nb = s.create_connection(a.getsockname())\nc = a.accept()[0]\n"
        "c.close()\nb.recv(1)\nb.close()"
    ),
    "the mode of /dev/shm": "import os; os.chmod('/dev/shm', 0o700)",
    "an attribute of /dev/shm": "import os; os.setxattr('/dev/shm', 'user.x', b'1')",
}


@NAMESPACES
@pytest.mark.parametrize("what", CHANGES)
def test_what_cannot_be_undone_is_told(first: FirstProcess, what: str) -> None:
    code, left, _ = first.run(CHANGES[what])
    if code:
        pytest.skip("this cannot be changed here")
    assert "was not restored" in left or "were not restored" in left


@NAMESPACES
@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(1, 9)",
        "import os; os.kill(1, 2)",
        "import os; os.kill(1, 15)",
        "open('/proc/1/mem', 'rb')",
        "open('/proc/1/fd/0', 'rb')",
        "open('/proc/1/environ').read()",
        "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
        "import os; os.write(3, b'x')",
        "import ctypes; assert ctypes.CDLL(None).syscall(250, 0, -3, 1) > 0",  # keyctl
        "import ctypes; assert ctypes.CDLL(None).syscall(248, b'user', b'x', b'x', 1, -3) > 0",  # add_key
    ],
)
def test_a_command_cannot_reach_the_first_process(first: FirstProcess, code: str) -> None:
    ended = first.run(f"{code}\nprint('reached')")
    assert ended[2] == "" or "kill" in code
    assert first.run("print('alive')") == (0, "", "alive\n")


@NAMESPACES
def test_what_a_command_writes_cannot_end_its_run(first: FirstProcess) -> None:
    forged = container_init.HEAD.pack(b"X", 1, 22) + b'{"code": 0, "left": ""}'
    code = f"import os, time\nos.write(1, {forged!r})\nos.write(2, {forged!r})\ntime.sleep(1)\nraise SystemExit(9)"
    assert first.run(code)[0] == 9


@NAMESPACES
def test_input_of_a_run_before_does_not_reach_the_next(first: FirstProcess) -> None:
    first.start("import sys; print(sys.stdin.readline().strip())")
    first.send(b"I", b"first\n")
    assert first.end() == (0, "", "first\n")
    first.send(b"I", b"late\n")
    first.start("import sys; print(sys.stdin.readline().strip())")
    first.send(b"I", b"second\n")
    assert first.end() == (0, "", "second\n")


@NAMESPACES
def test_a_command_that_writes_much_is_read_to_its_end(first: FirstProcess) -> None:
    assert len(first.run("print('x' * 20_000_000)", memory=1 << 30)[2]) == 20_000_001


def test_another_folder_than_the_callers_is_noticed(tmp_path: Path) -> None:
    spec = {"folder": str(tmp_path), "mark": "not there"}
    sent: list[bytes] = []

    class Channel:
        def send(self, kind: bytes, run: int, data: bytes = b"") -> None:
            sent.append(data)

    container_init.run_to_end(1, spec, Channel(), None)  # type: ignore[arg-type]
    assert json.loads(sent[0])["code"] == container_init.UNSEEN


def test_the_environment_of_an_image_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "environ", {"PATH": "/venv/bin", "PYTHONPATH": "/site", "HTTP_PROXY": "http://geheim", "TOKEN": "geheim"}
    )
    assert container_init.command_environment({"HOME": "/x", "PYTHONPATH": "/code"}) == {
        "PATH": "/venv/bin", "HOME": "/x", "PYTHONPATH": "/code:/site"}  # fmt: skip


@pytest.mark.parametrize("more", [["--trust"], ["--isolation", "landlock"], ["--install"]])
def test_options_that_contradict_a_container_are_refused(more: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "a.ipynb"), "--container", IMAGE, *more])
    assert done.exit_code == UsageError.exit_code
    assert more[0] in str(done.output) + str(done.exception)


def test_where_nothing_isolates_the_refusal_names_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "mode_works", lambda name: False)
    with pytest.raises(UsageError) as refused:
        isolation.best_mode()
    assert "--container IMAGE" in refused.value.next and "--trust" in refused.value.next
    rows = dict(isolation.protection_table())
    assert set(rows["container (--container IMAGE)"].values()) == {"yes"} and list(rows)[-1] == "none (--trust)"


@pytest.mark.slow
@pytest.mark.skipif(not PODMAN, reason="podman starts no container here")
class TestPodman:
    """With a real engine; the image is built where it is not here yet."""

    @pytest.fixture
    def limits(self) -> ChildLimits:
        return ChildLimits(60.0, 600 << 20, f"{PREFIX}{hostile.image()}")

    @pytest.mark.parametrize(
        "name", ["delete a file", "TCP", "the environment of all processes", "outlive it by a double fork"]
    )
    def test_an_attack_fails(self, limits: ChildLimits, name: str) -> None:
        assert hostile.attack(hostile.ATTACKS[name], limits.isolation) == []

    def test_greed_is_ended_with_its_reason(self, limits: ChildLimits, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        with Session(tmp_path / "here", tmp_path / "home", limits) as session, pytest.raises(Stopped) as stopped:
            session.run(1, "x = b'x' * (900 << 20)\nimport time; time.sleep(9)")
        assert stopped.value.ended.status == "memory"

    def test_a_container_ends_when_who_started_it_is_killed(self, limits: ChildLimits, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        code = (
            "import sys, time\nfrom pathlib import Path\nfrom d2c_mlops.convert.run.isolated_run import ChildLimits\n"
            "from d2c_mlops.convert.run.session import Session\n"
            f"s = Session(Path('here'), Path('home'), ChildLimits(60.0, 1 << 30, {limits.isolation!r}))\n"
            "s.run(1, 'x = 1')\nprint(s.container, flush=True)\ntime.sleep(60)"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        name = parent.stdout.readline().strip()
        assert name and name in running()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        limit = time.monotonic() + 20
        while name in running() and time.monotonic() < limit:
            time.sleep(0.2)
        assert name not in running()

    def test_a_conversion_is_equivalent_and_says_where_it_ran(self, limits: ChildLimits, tmp_path: Path) -> None:
        (tmp_path / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
        notebook = Path(__file__).parents[2] / "notebooks" / "churn_2019.ipynb"
        done = convert(notebook, settings=load_settings(tmp_path, environ={}), isolation=limits.isolation)
        assert done.verdict.status == "equivalent", done.to_text()
        assert f"isolation container of {hostile.image()} (podman)" in done.to_text()
        assert done.report is not None and f"container of {hostile.image()}" in done.report.read_text()


def running() -> str:
    return subprocess.run(["podman", "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True).stdout


def test_what_runs_foreign_code_has_one_door() -> None:
    """Every place that runs cells or the exported module starts a Child: there the container is chosen."""
    package = Path(containers.PACKAGE) / "convert"
    own = {"isolation.py", "containers.py", "container_init.py", "isolation_launcher.py", "isolated_run.py"}
    calls = [path.name for path in package.rglob("*.py") if path.name not in own and "View(" in path.read_text()]
    assert calls == [] and issubclass(Session, Child)
