"""Functions in a process of their own, with a limit of memory and of time."""

import multiprocessing
import resource
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from trainers.common.errors import UserError
from trainers.common.image_files import decoded

MEGABYTE = 2**20
FORK = multiprocessing.get_context("fork")


class Outcome(NamedTuple):
    """What became of a function.

    Attributes:
        value: what it has returned; error: what it has raised, as text, with its traceback; "": nothing.
        name: of the error's type; message: the error's own text.
        megabytes: the most memory that it held beyond what there was before; seconds: how long it took.
    """

    value: Any
    name: str
    message: str
    error: str
    megabytes: float
    seconds: float


def held(which):
    """Megabytes of memory of this process: ``VmRSS``, now, ``VmHWM``, at most, or ``VmSize``, of addresses."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(which)) / 1024


def limited(function, *arguments, megabytes=None, seconds=120, context=FORK):
    """``Outcome`` of a function in a process of its own.

    Args:
        megabytes: of addresses beyond those that there are, of which it may take no more; seconds: after which it is killed.
        context: a fork of this process, or ``children.PROCESSES``, where nothing is on the heap; then the function is one of a module.
    """
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=tell, args=(its, function, arguments, megabytes))
    process.start()
    its.close()
    try:
        if ours.poll(seconds):
            return ours.recv()
    except EOFError:
        pass
    finally:
        process.kill()
        process.join()
    end = f"ended by {process.exitcode} within {seconds} s"
    return Outcome(None, "Killed", end, end, 0, seconds)


def tell(pipe, function, arguments, megabytes):
    torch.set_num_threads(1)  # threads don't survive a fork
    pipe.send(made(function, arguments, megabytes))


def made(function, arguments, megabytes):
    start, before, value = time.monotonic(), held("VmRSS"), None
    name = message = error = ""
    if megabytes is not None:
        most = int((held("VmSize") + megabytes) * MEGABYTE)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        value = function(*arguments)
    except BaseException as raised:
        name, message = type(raised).__name__, str(raised)
        error = "".join(traceback.format_exception(raised))
    return Outcome(value, name, message, error, held("VmHWM") - before, time.monotonic() - start)


def decode_at_once(paths):
    """Sizes of pictures, or why they can't be read, that as many threads look at."""

    def read(path):
        try:
            with decoded(path, "white") as picture:
                return picture.size
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(read, paths))
