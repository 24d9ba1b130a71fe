"""Setup of a Python kernel before the first cell. Its source is sent to the kernel, so it imports nothing from this package."""

from __future__ import annotations

from d2c_mlops.settings.parsing import home_path


def setup_kernel(shell):  # type: ignore[no-untyped-def]
    """Make `exit()` end the notebook at this point, and a failing shell command an error, as in a script."""
    import warnings
    from functools import partial
    from pathlib import Path

    import zmq
    from IPython.core.autocall import ExitAutocall

    class Exit(ExitAutocall):
        """End the notebook, like sys.exit(): 0 or no argument is success, another status or a text is failure."""

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
        """Change the folder; raise an error if it does not exist, unlike IPython's own cd."""
        before = Path.cwd()
        cd(parameter_s)
        target = parameter_s.replace("-q", "").strip().strip("'\"")
        if target and target[0] != "-" and before == Path.cwd() and not home_path(target).is_dir():
            raise FileNotFoundError(f"folder {target!r} does not exist")

    shell.register_magic_function(strict_cd, "line", "cd")
