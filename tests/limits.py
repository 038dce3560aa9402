"""Functions in a process of their own, with a limit of memory."""

import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from tests.children import PROCESSES
from tests.runs import PATIENCE
from trainers.common.errors import UserError
from trainers.common.image_files import decoded

MEGABYTE = 2**20


class Outcome(NamedTuple):
    """What became of a function.

    Attributes:
        value: what it has returned.
        error: the type and text of what it has raised; "": nothing.
        megabytes: the most memory that it held beyond what there was before.
    """

    value: Any
    error: str
    megabytes: float


def held(which):
    """Megabytes of memory of this process: ``VmRSS``, now, ``VmHWM``, at most, or ``VmSize``, of addresses."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(which)) / 1024


def limited(function, *arguments, megabytes=None):
    """``Outcome`` of a module's function in a process of its own.

    Args:
        megabytes: of addresses beyond those that there are, of which it may take no more.
    """
    ours, its = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=tell, args=(its, function, arguments, megabytes))
    process.start()
    its.close()
    try:
        assert ours.poll(PATIENCE)
        return ours.recv()
    except EOFError:
        return Outcome(None, "its process was killed", 0)
    finally:
        process.kill()
        process.join()


def tell(pipe, function, arguments, megabytes):
    torch.set_num_threads(1)
    before = held("VmRSS")
    if megabytes is not None:
        most = int((held("VmSize") + megabytes) * MEGABYTE)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    value = None
    error = ""
    try:
        value = function(*arguments)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    pipe.send(Outcome(value, error, held("VmHWM") - before))


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
