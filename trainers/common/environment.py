"""The first steps of every command, which a library never takes: a package that is not installed, a closed
output or a locale without our letters ends in one line instead of a traceback, and threads that
wait for each other leave the core to others.

Ctrl-C gives a traceback until ``start_command`` is called, so this module imports next to nothing.
"""

import io
import math
import os
import signal
import sys
from types import TracebackType

# Threads that wait for each other spin, and where another program has a core, the one that they wait
# for has to wait for a time slice, hundreds of times a step: a training takes five to nine times as
# long (docs/performance.md). Here they spin for some hundred microseconds, which loses next to
# nothing on an idle machine. Each OpenMP has its own setting: libgomp, which torch's wheels for
# Linux bring along, counts rounds, 300,000 by default; LLVM's and Intel's (macOS, Windows, conda)
# milliseconds, 200 by default.
SHORT_SPIN = {"GOMP_SPINCOUNT": "15000", "KMP_BLOCKTIME": "0"}
# OpenBLAS's threads spin likewise, whatever OpenMP is told. numpy and scipy bring one, for whose small
# products one thread is enough; on x86 torch, whose products are large, has another library.
X86 = ("x86_64", "AMD64")
# what brings a package, where it is not the extra demo
BROUGHT_BY = {"dassl": "./dassl-lite"}
# Linux' files with the microseconds that a container may compute in a period, and the period's
# length; of the second and the first version of its control groups.
QUOTAS = (
    ["/sys/fs/cgroup/cpu.max"],
    ["/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"],
)
# the environment variable by which run.py tells each of several runs how many cores are its own
OWN_CORES = "CDC_CORES"


def prepare_threads() -> None:
    """Set environment variables of threads that the user has not set.

    OpenMP's threads spin for a short time when they wait, and a container has no more of them than cores;
    OpenBLAS has one. Call it before torch and numpy are imported: they read the variables once."""
    import platform

    if platform.machine() in X86:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in os.environ:  # the user's own, which these would override
        for name, value in SHORT_SPIN.items():
            os.environ.setdefault(name, value)
    cores = share_of_cores()
    if cores < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, round(cores))))


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least one: no more than the system gives it,
    its container has, and ``run.py --jobs`` leaves it beside other runs."""
    if hasattr(os, "sched_getaffinity"):  # of Linux, where Slurm may give some of the cores
        given = len(os.sched_getaffinity(0))
    else:
        given = os.cpu_count() or 1
    own = int(os.environ.get(OWN_CORES, given))
    return max(1, int(min(given, own, share_of_cores())))


def share_of_cores() -> float:
    """Return the number of cores that a container may use; infinite without a limit."""
    for paths in QUOTAS:
        try:
            quota, period = " ".join(map(read, paths)).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return math.inf


def read(path: str) -> str:
    """The text of a small file."""
    with open(path, encoding="ascii") as file:
        return file.read()


def leave_interrupts_to_system() -> None:
    """Lets Ctrl-C end a process that has only begun to import, without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def say_what_is_missing(
    type_: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """A ``sys.excepthook``: a package that is not installed ends the command with one line and exit
    code 2."""
    if not isinstance(error, ModuleNotFoundError):
        sys.__excepthook__(type_, error, traceback)
        return
    name = str(error.name).partition(".")[0]
    wanted = BROUGHT_BY.get(name, '".[demo]"')
    sys.stderr.write(
        f"error: {sys.executable} has no package {name}: pip install {wanted} in a "
        "clone of this repository, or start the command in the environment that was made for it (source "
        ".venv/bin/activate; docs/tutorials/first_run.md)\n"
    )
    sys.exit(2)


def start_command() -> None:
    """Prepares this process for a command; called before anything is imported that may not be
    installed, and before torch."""
    leave_interrupts_to_system()
    prepare_threads()
    sys.excepthook = say_what_is_missing
    if sys.stderr is None:  # closed
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stderr.write(
            "error: standard output is closed: leave it open, or send it to /dev/null\n"
        )
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the locale lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):  # files' names, which may hold any bytes
        sys.stdin.reconfigure(
            encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors()
        )


def first_line(docstring: str | None) -> str:
    """Return the first line of a command's help; empty under ``python -OO``, which drops docstrings."""
    return (docstring or "").partition("\n")[0]
