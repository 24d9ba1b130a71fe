"""What a Python kernel is told before the first cell. Its source is sent to the kernel, so it imports nothing of ours."""

from __future__ import annotations


def setup(shell):  # type: ignore[no-untyped-def]
    """Make `exit()` end the notebook where it stands, and a failing shell command an error, as in a script."""
    import warnings
    from functools import partial
    from pathlib import Path

    import zmq
    from IPython.core.autocall import ExitAutocall

    class Exit(ExitAutocall):
        """End the notebook here, as sys.exit() does: 0 or nothing succeeds, another status or a text fails."""

        def __call__(self, code=None, keep_kernel=False):  # type: ignore[no-untyped-def]
            raise SystemExit(code)

    end = Exit(shell)  # type: ignore[no-untyped-call]
    for name in ("exit", "quit"):
        shell.user_ns[name] = end
        shell.user_ns_hidden[name] = end
        shell.builtin_trap.auto_builtins[name] = end  # for modules that the notebook imports
    shell.ask_exit = end
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    if not shell.has_trait("system_raise_on_error"):
        raise RuntimeError("this kernel's IPython cannot report the status of shell commands; 9.0 or newer can")
    shell.system_raise_on_error = True
    thread = getattr(getattr(shell, "kernel", None), "iopub_thread", None)
    if thread is not None:  # wait for a slow reader instead of dropping what is printed
        thread.schedule(partial(thread.socket.setsockopt, zmq.XPUB_NODROP, 1))
    cd = shell.find_line_magic("cd")

    def strict_cd(parameter_s=""):  # type: ignore[no-untyped-def]
        """Change the folder; IPython's own goes on in the old one when there is no such folder."""
        before = Path.cwd()
        cd(parameter_s)
        target = parameter_s.replace("-q", "").strip().strip("'\"")
        if target and target[0] != "-" and before == Path.cwd() and not Path(target).expanduser().is_dir():
            raise FileNotFoundError(f"there is no folder {target!r}")

    shell.register_magic_function(strict_cd, "line", "cd")
