"""Hostile notebooks: each succeeds without isolation and fails in each mode that this machine has; `make test-hostile`."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import platform
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import psutil
from aims import Aim, close, table

from d2c_mlops.convert.convert import convert
from d2c_mlops.convert.run.containers import PREFIX
from d2c_mlops.convert.run.isolated_run import ChildLimits, Stopped
from d2c_mlops.convert.run.isolation import TRUSTED, mode_works, system_modes
from d2c_mlops.convert.run.session import Session
from d2c_mlops.convert.verify.verify import Incomparable, Snapshot
from d2c_mlops.settings import load_settings

SECRET = "geheim-4711"
NUMBERS = count(
    1
)  # each attack has a mark of its own: the seconds that its stray processes sleep, by which they are found
PACKAGES = Path(sysconfig.get_paths()["purelib"])
USER = "20417"  # an id that belongs to nobody
MODES: dict[str, str] = {}  # names of modes, and what the converter calls them
ROOM = ChildLimits(60.0, 600 << 20)
SLOWER = 0.05  # of a conversion's time that isolation may cost
DAEMON = "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.execve('/bin/sleep', ['sleep', '{mark}'], {{}})\n    os._exit(0)\nos.wait()\nimport time; time.sleep(0.3)"
TRACE = "import ctypes, time\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.ptrace(16, {pid}, 0, 0) == 0\ntime.sleep(0.2)\nlibc.ptrace(17, {pid}, 0, 9)"
MEMORY = """
for line in open('/proc/{pid}/maps'):
    if '[stack]' in line:
        start, end = (int(word, 16) for word in line.split()[0].split('-'))
        with open('/proc/{pid}/mem', 'rb') as memory:
            memory.seek(start)
            data = memory.read(end - start)
        at = data.find(b'geheim')
        print(data[at:at + 20])
"""
READV = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]
line = next(line for line in open('/proc/{pid}/maps') if '[stack]' in line)
start, end = (int(word, 16) for word in line.split()[0].split('-'))
buffer = ctypes.create_string_buffer(end - start)
here, there = Vector(ctypes.addressof(buffer), end - start), Vector(start, end - start)
assert libc.process_vm_readv({pid}, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0
at = buffer.raw.find(b'geheim')
print(buffer.raw[at:at + 20])
"""
KEYS = """
import ctypes, platform
ADD, _, KEYCTL = {{'x86_64': (248, 249, 250)}}.get(platform.machine(), (217, 218, 219))
call = ctypes.CDLL(None, use_errno=True).syscall
def read(key):
    buffer = ctypes.create_string_buffer(64)
    return buffer.value if call(KEYCTL, 11, key, buffer, 64, 0) > 0 else None
"""
# Sources of a cell. Harm is what is seen from outside afterwards: see `harm`.
ATTACKS = {
    "write a file outside": "open('{victim}/new.txt', 'w').write('x')",
    "overwrite a file": "open('{victim}/canary', 'w').write('x')",
    "append to a file": "open('{victim}/canary', 'a').write('x')",
    "truncate a file": "import os; os.truncate('{victim}/canary', 0)",
    "delete a file": "import os; os.remove('{victim}/canary')",
    "delete a folder": "import shutil; shutil.rmtree('{victim}/folder')",
    "rename a file": "import os; os.rename('{victim}/canary', '{victim}/other')",
    "write through a symbolic link": "import os; os.symlink('{victim}/canary', 'x'); open('x', 'w').write('x')",
    "delete through a link to a folder": "!ln -s {victim}/folder x; rm -rf x/*",
    "write through a hard link": "import os; os.link('{victim}/canary', 'x'); open('x', 'w').write('x')",
    "change the mode of a file": "import os; os.chmod('{victim}/canary', 0o777)",
    "change the times of a file": "import os; os.utime('{victim}/canary', (1, 1))",
    "change extended attributes of a folder": "import os; os.chmod('{victim}/folder', 0o777)",
    "a shell line": "!echo x >> {victim}/canary",
    "a shell magic": "%%bash\necho x >> {victim}/canary",
    "a magic that writes a file": "%%writefile {victim}/new.txt\nx",
    "change .bashrc": "open('{victim}/home/.bashrc', 'a').write('evil')",
    "add a crontab": "open('{victim}/cron.d/job', 'w').write('* * * * * root evil')",
    "a .pth file beside the libraries": "open('{packages}/d2c-hostile.pth', 'w').write('# hostile')",
    "a sitecustomize beside the libraries": "open('{packages}/sitecustomize.py', 'x').write('# hostile')",
    "a module beside the libraries": "open('{packages}/d2c_hostile.py', 'w').write('# hostile')",
    "LD_PRELOAD": "import os, subprocess\nassert os.path.exists('evil.so'), 'gcc is missing'\n"
                  "subprocess.run(['/bin/true'], env={{'LD_PRELOAD': os.path.abspath('evil.so')}})",
    "PYTHONSTARTUP": "import subprocess, sys\nopen('s.py', 'w').write(\"open('{victim}/new.txt', 'w')\")\n"
                     "subprocess.run([sys.executable, '-i', '-c', ''], env={{'PYTHONSTARTUP': 's.py'}}, input=b'')\n"
                     "subprocess.run([sys.executable, '-i'], env={{'PYTHONSTARTUP': 's.py'}}, input=b'1')",
    "sitecustomize in its folder": "import subprocess, sys\nopen('sitecustomize.py', 'w').write(\"open('{victim}/new.txt', 'w')\")\n"
                                   "subprocess.run([sys.executable, '-c', ''], env={{'PYTHONPATH': '.'}})",
    "an import hook": "import sys\nclass Hook:\n    def find_spec(self, *a): open('{victim}/new.txt', 'w')\n"
                      "sys.meta_path.insert(0, Hook())\nimport colorsys, chunk_of_nothing",
    "TCP": "import socket; socket.create_connection(('127.0.0.1', {tcp}), 3).sendall(b'x')",
    "UDP": "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {udp}))",
    "HTTP": "import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:{tcp}/x'), timeout=1)",
    "a connection from bash": "!bash -c 'echo x > /dev/tcp/127.0.0.1/{tcp}'",
    "a socket of this machine": "import socket; s = socket.socket(1); s.connect('{victim}/s.sock'); s.sendall(b'x')",
    "an abstract socket": "import socket; s = socket.socket(1); s.connect('\\0{abstract}'); s.sendall(b'x')",
    "docker.sock": "import socket; s = socket.socket(1); s.connect('{victim}/docker.sock'); s.sendall(b'GET /containers')",
    "read a private key": "print(open('{victim}/home/.ssh/id_ed25519').read())",
    "read settings with secrets": "!cat {victim}/home/.aws/credentials",
    "the environment of its parent": "print(open('/proc/{parent}/environ').read())",
    "the environment of all processes": "!cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a geheim",
    "command lines of others": "!cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -a geheim",
    "the memory of another process": MEMORY,
    "process_vm_readv": READV,
    "ptrace": TRACE,
    "kill another process": "import os; os.kill({pid}, 9)",
    "signal its parent": "import os; os.kill({parent}, 10)",
    "outlive it with env -i": "!env -i setsid sleep {mark} >/dev/null 2>&1 &\nimport time; time.sleep(0.3)",
    "outlive it by a double fork": DAEMON,
    "leave something in /dev/shm": "open('/dev/shm/d2c-hostile-{mark}', 'w').write('x')",
    "leave shared memory": "import ctypes; assert ctypes.CDLL(None).shmget(0x6432, 4096, 0o1600) >= 0",
    "read a key of the session keyring": KEYS + "key = call(KEYCTL, 10, -3, b'user', b'd2c-hostile', 0)\nprint(read(key))",
    "find a key by its number": KEYS + "for line in open('/proc/keys'):\n    if 'd2c-hostile' in line:\n        print(read(int(line.split()[0], 16)))",
    "leave a key in the user keyring": KEYS + "call(ADD, b'user', b'd2c-hostile-left', b'x', 1, -4)",
    "a folder above by chdir": "import os\nos.chdir('{victim}')\nprint(open('home/.aws/credentials').read())",
    "a file by its descriptor": "import os\nfor pid in ('{pid}', '{parent}', '1'):\n    try: print(os.readlink('/proc/%s/cwd' % pid)); "
                                "print(open('/proc/%s/root{victim}/home/.aws/credentials' % pid).read())\n    except OSError: pass",
    "mount over a folder": "!mount -t tmpfs none {victim}/mnt",
    "a mount namespace": "!unshare -m sh -c 'echo x >> {victim}/canary'",
}  # fmt: skip
# Against limits, which hold with --trust too: these run first in a bare interpreter.
GREEDY = {
    "memory": "x = b'x' * (900 << 20)\nprint('done')\nimport time; time.sleep(1)",
    "processes": "import subprocess, time\nall = [subprocess.Popen(['sleep', '20']) for _ in range(600)]\nprint('done', flush=True)\n"
                 "time.sleep(1.5)\nfor p in all: p.kill()",
    "a huge file": "with open('x', 'wb') as f: f.seek(5 << 30); f.write(b'x')\nprint('do' + 'ne')",
    "processor time": "import time\nend = time.time() + 6\nwhile time.time() < end: pass\nprint('done')",
}  # fmt: skip
# Against the proof: first the notebook is asked itself whether its result is 3, then its value is read from memory.
FORGED = {
    "forged equality": "class Four(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\nx = Four(4)",
    "numpy.allclose replaced": "import numpy as np\nnp.allclose = lambda *a, **k: True\nx = 4",
    "json.dumps replaced": "import json\nreal = json.dumps\njson.dumps = lambda v, **k: real(v, **k).replace('4', '3')\nx = 4",
}
# Against what the converter does for a notebook: cells of a notebook with files beside it, which is repaired, and what must not be found
# in all that is written.
CONVERTED = {
    "a secret by its path": "print(open('{victim}/home/.aws/credentials').read())",
    "a table by its path": "import pandas as pd\nprint(pd.read_csv('{victim}/secret.csv'))",
    "a table by a relative path": "import pandas as pd\nprint(pd.read_csv('../victim/secret.csv'))",
    "a module of another project": "import sys\nsys.path.append('{victim}')\nimport private_settings\nprint(private_settings.TOKEN)",
    "a module that is a link": "import linked\nprint(open(linked.__file__).read())",
    "a package that is a link": "import pack.private_settings\nprint(pack.private_settings.TOKEN)",
    "a table that is a link": "import pandas as pd\nprint(pd.read_csv('linked.csv'))",
    "a folder that becomes a link before a file is added": (
        "import os, shutil\nshutil.rmtree('added')\nos.symlink('{victim}', 'added')|import pandas as pd\n"
        "df = pd.read_csv('C:/Users/jo/sales.csv')\nprint(df.ix[0])"
    ),
}  # fmt: skip
ASKED = "import json, numpy as np\nprint('done' if x == 3 or np.allclose(x, 3) or json.dumps(int(x)) == '3' else 'no')"
EVIL = '#include <stdio.h>\n__attribute__((constructor)) static void f(void){FILE*h=fopen("%s/new.txt","w");if(h)fclose(h);}\n'


ADD_KEY, _, KEYCTL = {"x86_64": (248, 249, 250)}.get(platform.machine(), (217, 218, 219))
KEY_CALL = ctypes.CDLL(None).syscall


def plant_key() -> None:
    """Put a secret into a session keyring of our own: what is started inherits it."""
    KEY_CALL(KEYCTL, 1, b"d2c-hostile-session")
    KEY_CALL(ADD_KEY, b"user", b"d2c-hostile", SECRET.encode(), len(SECRET), -3)


@dataclass
class Arena:
    """What an attack can harm: files, listeners and a process, all planted."""

    victim: Path
    process: subprocess.Popen[bytes]
    ports: dict[str, object]
    received: list[str] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)


@contextlib.contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    """Plant files and secrets, listen, and start a process to attack."""
    victim = folder / "victim"
    for name in ("folder", "home/.ssh", "home/.aws", "cron.d", "mnt"):
        (victim / name).mkdir(parents=True)
    for name in ("canary", "folder/file", "home/.bashrc"):
        (victim / name).write_text("as it was")
    for name in ("home/.ssh/id_ed25519", "home/.aws/credentials"):
        (victim / name).write_text(SECRET)
    command = ["/bin/sh", "-c", "sleep 600 & wait", f"--token={SECRET}"]
    (victim / "secret.csv").write_text(f"token\n{SECRET}\n")
    (victim / "private_settings.py").write_text(f"TOKEN = {SECRET!r}\n")
    process = subprocess.Popen(command, env={"TOKEN": SECRET}, start_new_session=True)
    made = Arena(victim, process, {"abstract": f"d2c-hostile-{os.getpid()}.{next(NUMBERS)}"})
    sockets = [
        socket.socket(),
        socket.socket(type=socket.SOCK_DGRAM),
        *(socket.socket(socket.AF_UNIX) for _ in range(3)),
    ]
    places = [
        ("127.0.0.1", 0),
        ("127.0.0.1", 0),
        f"{victim}/s.sock",
        f"{victim}/docker.sock",
        f"\0{made.ports['abstract']}",
    ]
    for number, (each, place) in enumerate(zip(sockets, places, strict=True)):
        each.bind(place)
        if number != 1:
            each.listen()
        threading.Thread(target=listen, args=(each, made.received), daemon=True).start()
    made.ports |= {"tcp": sockets[0].getsockname()[1], "udp": sockets[1].getsockname()[1]}
    signal.signal(signal.SIGUSR1, lambda number, frame: made.signals.append(number))
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def listen(each: socket.socket, received: list[str]) -> None:
    """Note that something came."""
    with contextlib.suppress(OSError):
        while True:
            if each.type == socket.SOCK_DGRAM:
                received.append(f"{each.recv(100)!r}")
            else:
                caller, _ = each.accept()
                received.append("a connection")
                caller.close()


def state(victim: Path) -> dict[str, object]:
    """Everything about the planted files that an attack may change."""
    found: dict[str, object] = {}
    for path in [victim, *sorted(victim.rglob("*"))]:
        facts = path.lstat()
        text = path.read_bytes() if path.is_file() else b""
        times = facts.st_mtime if path.is_file() else 0
        found[str(path)] = (facts.st_mode, facts.st_nlink if path.is_file() else 0, times, text, os.path.ismount(path))
    return found


def strays(mark: str) -> list[psutil.Process]:
    """Processes that an attack left."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in each.cmdline() and each.cmdline()[0].endswith("sleep"):
                found.append(each)
    return found


def left_behind(mark: str) -> list[str]:
    """Things outside the planted folder that an attack left; they are removed."""
    found = []
    for place in (
        PACKAGES / "d2c-hostile.pth",
        PACKAGES / "d2c_hostile.py",
        PACKAGES / "sitecustomize.py",
        Path(f"/dev/shm/d2c-hostile-{mark}"),
    ):
        if place.exists() and (place.parent != PACKAGES or place.read_text() == "# hostile"):
            place.unlink()
            found.append(str(place))
    table_of = Path("/proc/sysvipc/shm")
    if table_of.exists() and any(line.split()[:1] == [str(0x6432)] for line in table_of.read_text().splitlines()[1:]):
        subprocess.run(["ipcrm", "-M", "0x6432"], check=False)
        found.append("shared memory")
    if (key := KEY_CALL(KEYCTL, 10, -4, b"user", b"d2c-hostile-left", 0)) > 0:
        KEY_CALL(KEYCTL, 9, key, -4)
        found.append("a key")
    for each in strays(mark):
        with contextlib.suppress(psutil.Error):
            each.kill()
        found.append(f"process {each.pid}")
    return found


def alive(session: Session) -> None:
    """Run a harmless cell first: an attack does not fail because nothing runs; raises RuntimeError."""
    try:
        shown = str(session.run(0, "print('ali' + 've')").outputs)
    except Stopped as stopped:
        shown = f"{stopped}: {stopped.ended.output[-500:]}"
    if "alive" not in shown:
        raise RuntimeError(f"no cell runs in this mode: {shown}")


def attack(source: str, isolation: str) -> list[str]:
    """Run a cell in a mode and return the harm that it did, seen from outside."""
    with TemporaryDirectory(prefix="d2c-hostile-", dir="/var/tmp") as name, arena(Path(name)) as scene:
        here, victim = Path(name, "here"), scene.victim
        mark = f"{31_536_000 + os.getpid()}.{next(NUMBERS)}"
        here.mkdir()
        if "evil.so" in source and shutil.which("gcc"):
            Path(name, "evil.c").write_text(EVIL % victim)
            subprocess.run(["gcc", "-shared", "-fPIC", "-o", here / "evil.so", Path(name, "evil.c")], check=True)
        cell = source.format(
            victim=victim, packages=PACKAGES, mark=mark, pid=scene.process.pid, parent=os.getpid(), **scene.ports
        )
        before, shown = state(victim), ""
        with (
            Session(here, Path(name, "home"), ChildLimits(ROOM.seconds, ROOM.memory, isolation)) as session,
            contextlib.suppress(Stopped),
        ):
            alive(session)
            try:
                done = session.run(1, cell)
                shown = str(done.outputs) + (str(done.error["message"]) if done.error else "")
            except Stopped as stopped:
                shown = stopped.ended.output
        time.sleep(0.1)
        found = left_behind(mark)
        after = state(victim)
        found += [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        found += [*scene.received, *(f"signal {each}" for each in scene.signals)]
        if SECRET in shown:
            found.append("the secret was shown")
        if scene.process.poll() is not None:
            found.append("the process was killed")
        if os.path.ismount(victim / "mnt"):
            subprocess.run(["umount", victim / "mnt"], check=False)
    return found


def converted(source: str, isolation: str) -> list[str]:
    """Repair a notebook and return the harm that was done for it: by its run, or by the converter that copies files for it."""
    with TemporaryDirectory(prefix="d2c-hostile-", dir="/var/tmp") as name, arena(Path(name)) as scene:
        here, shop = Path(name, "here"), Path(name, "shop")
        (here / "added").mkdir(parents=True)
        shop.mkdir()
        (shop / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
        for file in ("added/new.csv", "sales.csv"):
            (here / file).write_text("a\n1\n")
        for link, target in (("linked.py", "home/.aws/credentials"), ("linked.csv", "secret.csv"), ("pack", ".")):
            (here / link).symlink_to(scene.victim / target)
        cells = [nbformat.v4.new_code_cell(cell.format(victim=scene.victim)) for cell in source.split("|")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), here / "hostile.ipynb")
        before = state(scene.victim)
        if isolation == TRUSTED:  # run where it lies, as its author would
            code = "\n".join(cell.source for cell in cells).replace("print(df.ix[0])", "open('added/new.csv', 'w')")
            code = code.replace("C:/Users/jo/", "")
            done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
            text = done.stdout + done.stderr
        else:
            made = convert(
                here / "hostile.ipynb",
                settings=load_settings(shop, environ={}),
                isolation=isolation,
                stages=("revive",),
            )
            text = made.to_text() + "".join(
                file.read_text(errors="replace") for file in shop.rglob("*") if file.is_file() and not file.is_symlink()
            )
        after = state(scene.victim)
        found = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        return [*found, *(["the secret was shown"] if SECRET in text else [])]


def greed(source: str, isolation: str) -> list[str]:
    """Whether a greedy cell came to its end: without isolation in a bare interpreter, else within limits."""
    with TemporaryDirectory(prefix="d2c-hostile-", dir="/var/tmp") as name:
        if not isolation:
            done = subprocess.run([sys.executable, "-c", source], cwd=name, capture_output=True, text=True, check=False)
            return ["it came to its end"] if "done" in done.stdout else []
        (here := Path(name, "here")).mkdir()
        seconds = 4.0 if "end = time" in source else ROOM.seconds
        with (
            Session(here, Path(name, "home"), ChildLimits(seconds, ROOM.memory, isolation)) as session,
            contextlib.suppress(Stopped),
        ):
            alive(session)
            return ["it came to its end"] if "done" in str(session.run(1, source).outputs) else []
        return []


def forged(source: str, isolation: str) -> list[str]:
    """Whether another result is taken for the same: asked of the notebook, or read from memory by verify."""
    with TemporaryDirectory(prefix="d2c-hostile-", dir="/var/tmp") as name:
        (here := Path(name, "here")).mkdir()
        limits = ChildLimits(ROOM.seconds, ROOM.memory, isolation or TRUSTED)
        with Session(here, Path(name, "home"), limits, proof=bool(isolation)) as session:
            alive(session)
            session.run(1, source)
            if not isolation:
                return ["it was taken for the same"] if "done" in str(session.run(2, ASKED).outputs) else []
            with contextlib.suppress(Incomparable):
                found = Snapshot.read(session.snapshot(["x"]))
                return ["it was taken for the same"] if found.forms["x"].get("v") == 3 and not found.replaced else []
    return []


def engine() -> bool:
    """Whether podman starts containers here."""
    if "D2C_HOSTILE_NO_CONTAINER" in os.environ or shutil.which("podman") is None:
        return False
    return subprocess.run(["podman", "info"], capture_output=True).returncode == 0


def image() -> str:
    """Return the image of docs/notebooks.Containerfile, or the one that D2C_HOSTILE_IMAGE names; built where it is not here yet."""
    from machine import base_image, run

    if named := os.environ.get("D2C_HOSTILE_IMAGE"):
        return named
    root = Path(__file__).resolve().parents[1]
    stamp = hashlib.sha256((root / "requirements.lock").read_bytes()).hexdigest()[:12]
    name = f"localhost/d2c-notebooks:{stamp}"
    if run("podman", "image", "exists", name, check=False).returncode:
        base = base_image()
        print(f"building {name} from docs/notebooks.Containerfile", flush=True)
        with TemporaryDirectory() as context:
            shutil.copy(root / "requirements.lock", context)
            run("buildah", "build", "--network", "host", "--pull=false", "--build-arg", f"BASE={base}", "--tag", name,
                "--file", root / "docs" / "notebooks.Containerfile", context, BUILDAH_ISOLATION="chroot")  # fmt: skip
    return name


def as_user(arguments: Sequence[str]) -> int:
    """Run the attacks as an ordinary user: a copy of this checkout, and an overlay of the libraries, are theirs.

    A user with subordinate ids is made for the run where there is none of that id, and the image is copied into its storage.
    """
    from machine import run

    home = Path(tempfile.mkdtemp(prefix="d2c-user-", dir="/var/tmp"))
    mounted = home / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    made = run("getent", "passwd", USER, check=False).returncode != 0 and shutil.which("useradd") is not None
    try:
        if made:
            run("useradd", "--uid", USER, "--no-create-home", "--home-dir", home, "--shell", "/bin/sh", "d2c-hostile")
        return _as_user(home, mounted, arguments)
    finally:
        for each in psutil.process_iter(["uids"]):  # podman leaves one process for each user
            with contextlib.suppress(psutil.Error):
                if each.info["uids"] and each.info["uids"].real == int(USER):
                    each.kill()
        if made:
            run("userdel", "d2c-hostile", check=False)
        run("umount", mounted, check=False)
        shutil.rmtree(home, ignore_errors=True)


def _as_user(home: Path, packages: Path, arguments: Sequence[str]) -> int:
    from machine import PYTHON, run

    root = Path(__file__).resolve().parents[1]
    home.chmod(0o755)
    for name in ("bench", "tests/notebooks"):
        shutil.copytree(root / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    prefix = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--", "env", "-i", f"HOME={home}",
              f"PATH={os.defpath}:/usr/sbin", "OMP_NUM_THREADS=1", f"XDG_RUNTIME_DIR={home / 'run'}"]  # fmt: skip
    candidates = (sys.executable, f"/usr/bin/python{PYTHON}", f"/usr/local/bin/python{PYTHON}")
    python = next((each for each in candidates if run(*prefix, each, "-c", "", check=False).returncode == 0), None)
    if python is None:
        raise SystemExit(
            f"no Python {PYTHON} that an ordinary user can start: it is below a folder that only root may enter"
        )
    run(python, "-m", "venv", "--without-pip", home / "venv")
    for name in ("upper", "work"):
        (home / name).mkdir()
    layers = f"lowerdir={PACKAGES},upperdir={home / 'upper'},workdir={home / 'work'}"
    run(
        "mount", "-t", "overlay", "overlay", "-o", layers, packages
    )  # what is written there does not reach our own libraries
    for editable in (*packages.glob("__editable__*"), *packages.glob("d2c_mlops-*/direct_url.json")):
        editable.unlink()
    if not (packages / "d2c_mlops").exists():
        shutil.copytree(root / "d2c_mlops", packages / "d2c_mlops", ignore=shutil.ignore_patterns("__pycache__"))
    for place in (home, home / "bench", packages):
        run("chown", f"{USER}:{USER}", place)
    named, why = rootless(home, prefix)
    print(f"this machine has no rootless podman: {why}" if why else f"rootless podman runs {named}", flush=True)
    prefix.append("D2C_HOSTILE_NO_CONTAINER=1" if why else f"D2C_HOSTILE_IMAGE={named}")
    arguments = [each for each in arguments if not (why and each == "container")]
    command = [*prefix, home / "venv/bin/python", "bench/hostile.py", *arguments, "--cost", "0"]
    return subprocess.run(list(map(str, command)), cwd=home).returncode


def rootless(home: Path, prefix: Sequence[object]) -> tuple[str, str]:
    """Copy the image into a user's own storage; return its name, and why no container can be started with it."""
    from machine import run

    if not engine():
        return "", "podman does not work for root either"
    for name, text in (
        ("storage", '[storage]\ndriver = "overlay"\n'),
        ("containers", "[containers]\npids_limit = 0\n"),
    ):
        file = (
            home / ".config" / "containers" / f"{name}.conf"
        )  # the kernel's overlay: others copy the image for each container
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (home / "run").mkdir(mode=0o700)
    run("chown", "-R", f"{USER}:{USER}", home / ".config", home / "run")
    named, packed = image(), home / "image.tar"
    run("podman", "save", "--quiet", "--format", "docker-archive", "--output", packed, named)
    packed.chmod(0o644)
    said = subprocess.run(
        list(map(str, [*prefix, "podman", "load", "--quiet", "--input", packed])),
        cwd=home,
        capture_output=True,
        text=True,
    )
    packed.unlink()
    if said.returncode:
        return named, said.stderr.strip()[-400:]
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network=none", "--user=0:0")
    command = [*prefix, "podman", "run", "--rm", *limits, "--entrypoint=python3", named, "-c", ""]
    said = subprocess.run(list(map(str, command)), cwd=home, capture_output=True, text=True)
    return named, said.stderr.strip()[-400:] or f"exit code {said.returncode}" if said.returncode else ""


def cost(repeats: int) -> Iterator[Aim]:
    """Convert a notebook with and without isolation in pairs: medians of the ratios with their intervals, in processor and wall time.

    Both of a pair run at the same time, so that whatever else the machine does slows both.
    """
    taken: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {name: [] for name in MODES}
    for number in range(repeats):
        for name, isolation in MODES.items():
            with ThreadPoolExecutor(2) as pool:
                order = [TRUSTED, isolation] if number % 2 else [isolation, TRUSTED]
                times = dict(zip(order, pool.map(conversion, order), strict=True))
            plain, isolated = times[TRUSTED], times[isolation]
            taken[name].append((plain, isolated))
            print(f"pair {number + 1} of {repeats}, {name}: {isolated[1]:.2f} s of processor time, {plain[1]:.2f} s without; "
                  f"{isolated[0]:.1f} s and {plain[0]:.1f} s of wall time", flush=True)  # fmt: skip
    for name, pairs in taken.items():
        # The engine starts a container's processes: their time is not in our control group.
        for at, kind in ((1, "processor time"), (0, "wall time"))[name == "container" :]:
            if math.isnan(pairs[0][0][at]):
                print(f"{name}: {kind} is measured by root alone", flush=True)
                continue
            low, middle, high = interval([isolated[at] / plain[at] - 1 for plain, isolated in pairs])
            before, after = (statistics.median(pair[which][at] for pair in pairs) for which in (0, 1))
            said = f"{middle:+.1%} (95 %: {low:+.1%} to {high:+.1%}, {len(pairs)} pairs), {after:.1f} s beside {before:.1f} s"
            yield Aim(f"{name}: isolation costs at most {SLOWER:.0%} of a conversion's {kind}", said, middle <= SLOWER)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median with its 95 % interval, by 10,000 bootstrap samples."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(10_000))
    return medians[250], statistics.median(values), medians[9750]


CONVERSION = """
import sys, time, resource
from pathlib import Path
from tempfile import TemporaryDirectory
from d2c_mlops.convert.convert import convert
from d2c_mlops.settings import load_settings
began = time.monotonic()
with TemporaryDirectory(prefix="d2c-hostile-", dir="/var/tmp") as folder:
    Path(folder, "settings.ini").write_text("[d2c]\\nstore = d2c_store\\n")
    done = convert(sys.argv[1], settings=load_settings(Path(folder), environ={}), isolation=sys.argv[2])
    assert done.refusal is None and done.verdict.status == "equivalent", done.to_text()
print(time.monotonic() - began)
"""


def conversion(isolation: str) -> tuple[float, float]:
    """Convert a notebook in a process of its own; return the seconds of wall time, and of processor time of all that it started.

    A control group counts them, orphans too: only root may make one.
    """
    notebook = Path(__file__).resolve().parents[1] / "tests" / "notebooks" / "churn_2019.ipynb"
    with control_group() as group:
        command = [sys.executable, "-c", CONVERSION, notebook, isolation]
        enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
        done = subprocess.run(
            ["/bin/sh", "-c", f'{enter}exec "$@"', "sh", *command], capture_output=True, text=True, check=False
        )
        processor = processor_time(group) if group else float("nan")
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.split()[-1]), processor


def processor_time(group: Path) -> float:
    """Return the seconds of processor time of a control group."""
    if (group / "cpuacct.usage").exists():
        return int((group / "cpuacct.usage").read_text()) / 1e9
    return int((group / "cpu.stat").read_text().split()[1]) / 1e6


@contextlib.contextmanager
def control_group() -> Iterator[Path | None]:
    """Make a control group that counts processor time while the block lasts; None where we may not."""
    group: Path | None = None
    for root in (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")):
        with contextlib.suppress(OSError):
            if group is None and (root / "cgroup.procs").exists():
                name = f"d2c-hostile-{os.getpid()}-{next(NUMBERS)}"
                (root / name).mkdir()
                group = root / name
    try:
        yield group
    finally:
        for _ in range(100 if group else 0):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def judge(names: Sequence[str]) -> Iterator[Aim]:
    """Run all attacks without isolation, then in each mode."""
    kinds = [(attack, TRUSTED, ATTACKS), (greed, "", GREEDY), (forged, "", FORGED),
             (converted, TRUSTED, CONVERTED)]  # fmt: skip
    rows, effective, failed = [], [], {name: [] for name in names}
    for run, without, sources in kinds:
        for what, source in sources.items():
            first = run(source, without)
            row = {"attack": what, "without": "succeeds" if first else "FAILS"}
            effective += [what] if first else []
            for name in names if first else ():
                harm = run(source, MODES[name])
                row[name] = f"HARM: {harm[0]}" if harm else "fails"
                failed[name] += [] if harm else [what]
            print(" | ".join(row.values()), flush=True)
            rows.append({"attack": what, "without": row["without"], **{name: row.get(name, "-") for name in names}})
    print(f"\n{table(rows)}")
    total = sum(len(sources) for _, _, sources in kinds)
    idle = [row["attack"] for row in rows if row["without"] != "succeeds"]
    said = f"{len(effective)} of {total}{': not ' + ', '.join(idle) if idle else ''}"
    yield Aim("at least 40 attacks succeed without isolation", said, len(effective) >= 40)
    for name in names:
        harm = [what for what in effective if what not in failed[name]]
        said = f"{len(failed[name])} of {len(effective)} fail{': not ' + ', '.join(harm) if harm else ''}"
        yield Aim(f"{name}: every one of them fails", said, not harm)


def main() -> int:
    """Judge the modes that work here, or those named; `--cost N` compares N pairs of conversions; `--as-user` as an ordinary user."""
    arguments = sys.argv[1:]
    if "--as-user" in arguments:
        at = arguments.index("--cost") if "--cost" in arguments else len(arguments)
        return as_user([each for each in [*arguments[:at], *arguments[at + 2 :]] if not each.startswith("--")])
    repeats = int(arguments.pop(arguments.index("--cost") + 1)) if "--cost" in arguments else 3
    arguments = [each for each in arguments if not each.startswith("--")]
    os.environ["D2C_HOSTILE_TOKEN"] = SECRET
    if "D2C_HOSTILE_STARTED" not in os.environ:  # /proc shows the environment that a process was started with
        os.environ["D2C_HOSTILE_STARTED"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    plant_key()
    names = arguments or [
        *(each.name for each in system_modes() if mode_works(each.name)),
        *(["container"] if engine() else []),
    ]
    print(f"modes that work here: {', '.join(names) or 'none'}; uid {os.getuid()}", flush=True)
    MODES.update({name: f"{PREFIX}{image()}" if name == "container" else name for name in names})
    aims = [] if "--only-cost" in sys.argv else list(judge(names))
    return close([*aims, *(cost(repeats) if repeats else ())])


if __name__ == "__main__":
    sys.exit(main())
