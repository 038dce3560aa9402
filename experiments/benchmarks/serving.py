"""What cdc-serve bears: memory and times of a server under requests in a row, then under clients side by side.

    python -m experiments.benchmarks.serving                    # minutes
    python -m experiments.benchmarks.serving --requests 1000 --seconds 10

The server is a process of its own with a run of the tiny CLIP on drawings of two classes; the pictures that it is
sent are a few photographs' size, 1024 × 768 pixels. Its memory is the resident one, from Linux' ``/proc``.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

import numpy
from PIL import Image
from tabulate import tabulate

from experiments.benchmarks.labelling import draw
from labelling.classifier import PromptedClassifier
from trainers.common.image_files import decoded

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = (1024, 768)  # pixels
SENT = 10  # different pictures
BEFORE = 200  # requests before memory is looked at: buffers and threads exist by then
PATIENCE = 60.0  # seconds


def photographs() -> list[bytes]:
    """JPEG files of coarse noise, as large as a photograph that a page shows."""
    drawn = numpy.random.default_rng(0)
    files = []
    for _ in range(SENT):
        pixels = drawn.integers(0, 256, (48, 64, 3), dtype=numpy.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize(SIZE).save(file, format="JPEG")
        files.append(file.getvalue())
    return files


def decoding(files: Sequence[bytes]) -> float:
    """Return the milliseconds that decoding a picture takes."""
    start = time.perf_counter()
    for file in files:
        with decoded(io.BytesIO(file), "white", 64) as picture:
            picture.load()
    return 1000 * (time.perf_counter() - start) / len(files)


@contextmanager
def serving(run: Path) -> Iterator[tuple[int, str]]:
    """Serve a run; the server's process and its address."""
    command = [sys.executable, "serve.py", "--run", str(run), "--port", "0"]
    server = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    try:
        for line in server.stderr:
            if "Open " in line:
                address = line.partition("Open ")[2].split()[0]
                yield server.pid, f"{address}/predict"
                return
        raise RuntimeError("the server did not start")
    finally:
        server.terminate()
        server.wait()


def memory(process: int) -> float:
    """MB of a process now."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize() / 2**20


def ask(address: str, file: bytes) -> float:
    """Return the milliseconds of a request, or NaN where it failed."""
    start = time.perf_counter()
    request = Request(address, file, {"Content-Type": "image/jpeg"})  # noqa: S310  (our own server)
    try:
        with urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            rows = json.load(answer)
        if "label" in rows[0]:
            return 1000 * (time.perf_counter() - start)
    except (OSError, ValueError, HTTPException):
        pass
    return float("nan")


def in_a_row(address: str, files: Sequence[bytes], requests: int) -> list[float]:
    """Ask once after another; the milliseconds of each request."""
    return [ask(address, files[number % len(files)]) for number in range(requests)]


def side_by_side(address: str, files: Sequence[bytes], clients: int, seconds: float) -> list[float]:
    """Have clients ask for some seconds; the milliseconds of each request."""
    end = time.monotonic() + seconds

    def client(number: int) -> list[float]:
        times = []
        while time.monotonic() < end:
            times.append(ask(address, files[number % len(files)]))
        return times

    with ThreadPoolExecutor(clients) as pool:
        by_client = pool.map(client, range(clients))
        return [each for times in by_client for each in times]


def row(what: str, times: Sequence[float], before: float, after: float) -> list[object]:
    """A row of the table."""
    middle, most = numpy.nanpercentile(times, (50, 99))
    errors = int(numpy.isnan(times).sum())
    return [
        what,
        len(times),
        errors,
        f"{middle:.0f}",
        f"{most:.0f}",
        f"{before:.0f}",
        f"{after:.0f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--requests", type=int, default=10000, help="in a row (default: 10000)")
    parser.add_argument("--clients", type=int, default=20, help="side by side (default: 20)")
    parser.add_argument("--seconds", type=float, default=60, help="of the clients (default: 60)")
    args = parser.parse_args(arguments)
    files = photographs()
    with tempfile.TemporaryDirectory() as place:
        draw(Path(place) / "drawn")
        run = Path(place) / "run"
        PromptedClassifier.fit(Path(place) / "drawn", backbone="tiny", folder=run)
        with serving(run) as (process, address):
            in_a_row(address, files, BEFORE)
            first = memory(process)
            alone = in_a_row(address, files, args.requests)
            then = memory(process)
            together = side_by_side(address, files, args.clients, args.seconds)
            last = memory(process)
    clients = f"{args.clients} clients, {args.seconds:g} s"
    rows = [row("in a row", alone, first, then), row(clients, together, then, last)]
    columns = ["requests", "number", "errors", "median (ms)", "99 % (ms)", "MB before", "MB after"]
    print(tabulate(rows, columns, tablefmt="github"))
    print(f"Decoding a picture takes {decoding(files):.1f} ms; {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
