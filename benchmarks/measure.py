"""What every benchmark here does alike: alternating timing, counted FLOPs, peak memory, the table and the JSON file.

A benchmark is a module with two settings, ``FULL`` and ``QUICK``, and a generator of tables:

    def tables(setting):
        yield "title", [{"K": 10, **row} for row in compare({"usual": usual, "ours": ours}, setting.repetitions, peak)]

    if __name__ == "__main__":
        main(__doc__, tables, FULL, QUICK)

Timings of two implementations are only worth comparing if they come from the same process and the same minutes: the
implementations take turns, round by round, and ratios are taken within a round, so that a machine that slows down does so for all.
"""

import argparse
import ctypes
import gc
import json
import logging
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # "python benchmarks/NAME.py" puts only benchmarks/ on the path

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count  # noqa: E402

from trainers.common.files import write_text  # noqa: E402

log = logging.getLogger(__name__)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GIGA = 1e9
Work = Callable[[], object]  # what is measured
Entry = dict[str, Any]  # a row of a table: column → figure
RESERVE = 1.5e9  # bytes of the free memory that a child leaves to the machine


@dataclass(frozen=True)
class Repetitions:
    """How often implementations take turns: at least ``least`` rounds, then up to ``most`` within ``seconds``."""

    least: int = 3
    most: int = 15
    seconds: float = 20.0


def synchronize() -> None:
    """Waits until the device has finished its work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(function: Work) -> float:
    synchronize()
    started = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - started


def alternate(
    implementations: Mapping[str, Work], repetitions: Repetitions
) -> dict[str, list[float]]:
    """Times implementations in turn, one call each a round, in order and in reverse order by turns.

    They should be warm: call each once before (``count_flops`` does).

    Args:
        implementations: name → function without arguments.
        repetitions: ``Repetitions``.

    Returns:
        name → seconds of each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in implementations}
    started, order, rounds = time.perf_counter(), list(implementations), 0
    while rounds < repetitions.least or (
        rounds < repetitions.most and time.perf_counter() - started < repetitions.seconds
    ):
        for name in order:
            seconds[name].append(seconds_of(implementations[name]))
        order.reverse()  # whoever runs second finds the caches as the first has left them
        rounds += 1
    return seconds


# torch counts the fused attention of GPUs but not the CPU's
FUSED_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: (
        sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, query, key, value, *_, **__: (
        sdpa_backward_flop_count(gradient, query, key, value)
    ),
}


def flops_by_operator(function: Work) -> dict[str, int]:
    """Runs ``function`` and counts: operator's name (``addmm``, ``bmm`` …) → FLOPs, a multiplication and an addition being two."""
    counter = FlopCounterMode(display=False, custom_mapping=FUSED_ATTENTION)
    with counter:
        function()
    counts = counter.get_flop_counts().get("Global", {})  # no such entry where nothing was counted
    return {str(operator).removeprefix("aten."): flops for operator, flops in counts.items()}


def count_flops(function: Work) -> int:
    """FLOPs of one call: matrix products, convolutions and attention; what is elementwise is not counted."""
    return sum(flops_by_operator(function).values())


def matmul_peak(
    dtype: torch.dtype = torch.float32, size: int = 2048, seconds: float = 1.0
) -> float:
    """FLOP/s of a square matrix product in this process, the best of the calls that fit into ``seconds``.

    The best and not the median: it is what the machine can do, and gives the lower bounds.
    """
    first, second = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        times.append(seconds_of(lambda: first @ second))
    return 2 * size**3 / min(times)


def compare(
    implementations: Mapping[str, Work], repetitions: Repetitions, peak: float, ours: str = "ours"
) -> list[Entry]:
    """Rows of a table, one an implementation.

    Args:
        implementations: name → function without arguments; one of them is called ``ours``.
        repetitions: ``Repetitions``.
        peak: FLOP/s of ``matmul_peak``, in the precision that is measured.

    Returns:
        list of dicts: the median of seconds; their spread, the half of the range in percent of the median; how many times as long as
        ours it takes, the median of the rounds' ratios; counted GFLOP; the seconds that these take at the matmul peak, a
        lower bound for any implementation of the same products; the share of that peak that was reached, in percent.
    """
    flops = {
        name: count_flops(function) for name, function in implementations.items()
    }  # warms up as well
    seconds = alternate(implementations, repetitions)
    return [row(name, seconds[name], seconds[ours], flops[name], peak) for name in implementations]


def row(
    name: str, seconds: Sequence[float], seconds_of_ours: Sequence[float], flops: int, peak: float
) -> Entry:
    median, bound = statistics.median(seconds), flops / peak
    return {
        "implementation": name,
        "median s": median,
        "spread %": 50 * (max(seconds) - min(seconds)) / median,
        "times ours": times_ours(seconds, seconds_of_ours),
        "rounds": len(seconds),
        "GFLOP": flops / GIGA,
        "bound s": bound,
        "% of peak": 100 * bound / median,
    }


def times_ours(seconds: Sequence[float], seconds_of_ours: Sequence[float]) -> float:
    """How many times as long as ours it takes: the median of the rounds' ratios."""
    return statistics.median(theirs / own for theirs, own in zip(seconds, seconds_of_ours))


def by_name(rows: Iterable[Entry]) -> dict[str, Entry]:
    """Implementation's name → its row."""
    return {entry["implementation"]: entry for entry in rows}


# ---- peak memory, in a process of its own ----


@dataclass(frozen=True)
class Memory:
    """Peak of a pass in bytes.

    Attributes:
        peak: of the whole process, weights and libraries included (on a GPU: of all that torch allocated).
        added: what the pass added to the memory in use before it.
    """

    peak: int
    added: int


def peak_memory(build: Callable[..., Work], *args: Any) -> Memory | None:
    """Peak memory of ``build(*args)()`` in a fresh process, ``build`` itself not counted; None where it does not fit.

    A process's peak never falls again, hence one for each figure. The child may use what is free now less
    ``RESERVE``: its allocation fails before the machine would have to kill something.

    Args:
        build: function of a module that can be imported; it returns the pass, a function without arguments.

    Raises:
        RuntimeError: the pass failed, but not for want of memory.
    """
    give_back_memory()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_measure_memory, args=(there, build, args, sys.path))
    child.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:  # killed, or aborted by a library that can't do without its scratch memory
        answer = None
    child.join()
    if isinstance(answer, str):
        raise RuntimeError(f"{build.__name__}{args}: {answer}")
    return answer


def _measure_memory(
    connection: Connection, build: Callable[..., Work], args: tuple[Any, ...], path: list[str]
) -> None:
    sys.path[:] = path
    limit = int(free_memory() - RESERVE)
    if DEVICE.type == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        work = build(*args)
        give_back_memory()  # what building has freed would hide what the pass takes
        reset_peak()
        before = memory_in_use("VmRSS")
        work()
        peak = memory_in_use("VmHWM")
        connection.send(Memory(peak, peak - before))
    except (RuntimeError, MemoryError) as error:
        out_of_memory = isinstance(
            error, (MemoryError, torch.OutOfMemoryError)
        ) or "allocate" in str(error)
        connection.send(None if out_of_memory else repr(error))


def give_back_memory() -> None:
    """Returns freed memory to the system: after a large pass the C library may keep gigabytes that a child then lacks."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def free_memory() -> int:
    """Bytes that processes could still take."""
    return _kilobytes("/proc/meminfo", "MemAvailable")


def memory_in_use(key: str) -> int:
    """Bytes in use, now (``VmRSS``) or at most (``VmHWM``); on a GPU the same of what torch has allocated there.

    ``VmHWM`` and not ``ru_maxrss``, which a child inherits from the process that started it: a small child of a large parent would
    report its parent's peak.
    """
    if DEVICE.type == "cuda":
        return (
            torch.cuda.max_memory_allocated() if key == "VmHWM" else torch.cuda.memory_allocated()
        )
    return _kilobytes("/proc/self/status", key)


def reset_peak() -> None:
    """Forgets how much memory building took: only the pass counts."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _kilobytes(path: str, key: str) -> int:
    line = next(
        line
        for line in Path(path).read_text(encoding="ascii").splitlines()
        if line.startswith(f"{key}:")
    )
    return 1024 * int(line.split()[1])


# ---- the command ----


def machine() -> dict[str, Any]:
    """Versions and hardware that the figures depend on."""
    models = [
        line
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    processor = models[0].split(":")[1].strip() if models else platform.processor()
    if DEVICE.type == "cuda":
        processor = torch.cuda.get_device_name()
    return {"processor": processor, "threads": torch.get_num_threads(), "torch": torch.__version__}


def main(
    description: str,
    tables: Callable[[Any], Iterable[tuple[str, list[Entry]]]],
    full: Any,
    quick: Any,
    arguments: Sequence[str] | None = None,
) -> None:
    """The command of a benchmark: prints its tables, each as soon as it is there, and keeps them as JSON if asked to.

    Args:
        description: its docstring.
        tables: function of a setting that yields titles and rows (lists of dicts).
        full, quick: the settings.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="less of everything, under a minute: to see that it works",
    )
    parser.add_argument(
        "--json", default="", metavar="FILE", help="keep the figures in this file too"
    )
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    record = {
        "description": description.splitlines()[0],
        "quick": args.quick,
        "machine": machine(),
        "tables": {},
    }
    say(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    for title, rows in tables(quick if args.quick else full):
        say(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.4g')}")
        record["tables"][title] = rows
        if args.json:  # after every table: what is done is kept if a long run is cut off
            write_text(str(Path(args.json).resolve()), json.dumps(record, indent=1) + "\n")


def say(text: str) -> None:
    """Prints at once, also where standard output is a file."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
