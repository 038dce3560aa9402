"""The folder of a sweep, ``<output>/sweeps/<name>``: what belongs to it, and what became of each of its jobs.

``sweep.json`` has the chains and the options of the executor. Each chain has a folder ``jobs/<its name>`` with

- ``submission.json``: which job of which executor makes it; written by who submits,
- ``outcome.json``: how far that job is; written by the job itself,
- ``cancelled``: there if a user doesn't want it made,
- its log; of a cluster's jobs submitit keeps that elsewhere, with what it has pickled.

The runs' own folders say which are done. Nothing else is remembered, so every shell sees the same, also after a reboot.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import filelock

from trainers.common.errors import UserError, nearest
from trainers.common.files import write_text
from trainers.common.metrics import read_metrics
from trainers.common.readers import read_json
from trainers.common.record_file import FILE_NAME

from .grid import Chain, Run

ORDER = ("failed", "running", "queued", "waiting", "stopped", "cancelled", "done")


@dataclass(frozen=True)
class Status:
    """How far a chain is.

    Attributes:
        chain: which.
        state: ``done`` all its runs are; ``running``; ``queued``: submitted, not started; ``waiting``: not submitted; ``failed``;
            ``stopped``: interrupted, and goes on when it is started again; ``cancelled``.
        runs_done: number of runs that are done.
        epoch: ``3/50`` of the run that is being trained; eta: of its training, as h:mm:ss; empty where nothing is known.
        error: what went wrong, in one line; log: file with more.
    """

    chain: Chain
    state: str
    runs_done: int
    epoch: str = ""
    eta: str = ""
    error: str = ""
    log: str = ""


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def read_if_there(path: str) -> Any:
    """What is in a JSON file; None where there is none.

    Raises:
        UserError: it can't be read.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(
            f"{path} can't be read ({error}): delete it, and start the sweep again"
        ) from error


def write_json(path: str, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def last_progress(folder: str) -> tuple[str, str]:
    """Epoch and remaining time of the training in a run's folder; two empty strings where it has not come to its first line."""
    for line in read_metrics(folder, only_end=True)[-1:]:
        return f"{line['epoch']}/{line['epochs']}", str(timedelta(seconds=int(line["eta"])))
    return "", ""


def is_there(run: Run) -> bool:
    """Whether a run is done, whatever its settings."""
    return os.path.isfile(os.path.join(run.folder, FILE_NAME))


class Sweep:
    """A sweep's folder.

    Attributes:
        name: of the sweep; folder: where it is; key: what ``load`` takes.
        chains: name → ``Chain``.
        options: of the executor, see ``executors.Slurm``.
    """

    def __init__(
        self, output: str, name: str, chains: Iterable[Chain], options: Mapping[str, Any]
    ) -> None:
        self.name, self.folder, self.options, self.key = (
            name,
            folder_of(output, name),
            options,
            (os.path.abspath(output), name),
        )
        self.chains = {chain.name: chain for chain in chains}
        self.is_mine = False  # whether this process holds it

    def save(self) -> None:
        write_json(
            os.path.join(self.folder, "sweep.json"),
            {
                "name": self.name,
                "started": now(),
                "options": self.options,
                "chains": [chain.to_json() for chain in self.chains.values()],
            },
        )

    @classmethod
    def load(cls, output: str, name: str) -> "Sweep":
        """
        Raises:
            UserError: no sweep of that name was started.
        """
        found = read_if_there(os.path.join(folder_of(output, name), "sweep.json"))
        if found is None:
            folder = os.path.join(output, "sweeps")
            there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            raise UserError(
                f"no sweep {name!r}{nearest(name, there)}; there is {', '.join(there) or 'none'} in {folder}"
            )
        return cls(output, name, map(Chain.from_json, found["chains"]), found["options"])

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock of the one command that submits jobs; the kernel releases it however that ends.

        Raises:
            UserError: another one holds it.
        """
        os.makedirs(self.folder, exist_ok=True)
        lock = filelock.FileLock(os.path.join(self.folder, "lock"), timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise UserError(
                f"another command is running the sweep {self.name}: sweep.py status {self.name} shows how far it is"
            ) from error
        self.is_mine = True
        try:
            yield
        finally:
            self.is_mine = False
            lock.release()

    def is_held(self) -> bool:
        """Whether a command is there that submits what waits."""
        try:
            with self.held():
                return False
        except UserError:
            return True

    # ---- of one chain ----

    def place(self, name: str, file: str = "") -> str:
        """A file in the folder of a chain; without one the folder."""
        return os.path.join(self.folder, "jobs", name, file)

    def submission(self, name: str) -> dict[str, Any] | None:
        return read_if_there(self.place(name, "submission.json"))

    def outcome(self, name: str) -> dict[str, Any]:
        return read_if_there(self.place(name, "outcome.json")) or {}

    def note_submission(self, name: str, **facts: Any) -> None:
        write_json(self.place(name, "submission.json"), {"submitted": now(), **facts})

    def note_outcome(self, name: str, state: str, **facts: Any) -> None:
        write_json(self.place(name, "outcome.json"), {"state": state, "at": now(), **facts})

    def forget(self, name: str) -> None:
        """As if the chain had never been submitted; its logs and runs stay."""
        for file in ("submission.json", "outcome.json", "cancelled"):
            path = self.place(name, file)
            if os.path.exists(path):
                os.remove(path)

    def cancel(self, name: str) -> None:
        write_text(self.place(name, "cancelled"), now() + "\n")

    def is_cancelled(self, name: str) -> bool:
        return os.path.exists(self.place(name, "cancelled"))

    def status(self, name: str, alive: str | None) -> Status:
        """``Status`` of a chain.

        Args:
            alive: ``running`` or ``queued`` where the executor has a job of it, else None.
        """
        chain = self.chains[name]
        runs_done = sum(map(is_there, chain.runs))
        submission, outcome = self.submission(name), self.outcome(name)
        log = (submission or {}).get("log", "")
        if alive:
            epoch, eta = (
                last_progress(outcome["run"])
                if alive == "running" and outcome.get("state") == "running"
                else ("", "")
            )
            return Status(chain, alive, runs_done, epoch, eta, log=log)
        if outcome.get("state") in ("failed", "stopped"):
            return Status(
                chain,
                "cancelled" if self.is_cancelled(name) else outcome["state"],
                runs_done,
                error=outcome.get("error", ""),
                log=log,
            )
        if runs_done == len(chain.runs):
            return Status(chain, "done", runs_done, log=log)
        if self.is_cancelled(name):
            return Status(chain, "cancelled", runs_done, log=log)
        if submission is None:
            return Status(chain, "waiting", runs_done)
        return Status(
            chain,
            "failed",
            runs_done,
            error="its job ended without a word: it was killed, or the machine went down",
            log=log,
        )

    def chosen(self, words: Sequence[str]) -> list[str]:
        """Names of the chains in whose names all of the words stand, between slashes.

        Raises:
            UserError: there are none.
        """
        found = [name for name in self.chains if set(words) <= set(name.split("/"))]
        if not found:
            known = sorted({part for name in self.chains for part in name.split("/")})
            raise UserError(
                f"no job of the sweep {self.name} has {' '.join(words)} in its name; parts of names are {', '.join(known)}"
            )
        return found


def folder_of(output: str, name: str) -> str:
    """Folder of a sweep.

    Raises:
        UserError: the name can't be that of a folder.
    """
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        raise UserError(
            f"the sweep's name {name!r} must be of letters, digits, dots, underscores and hyphens: it becomes a folder's"
        )
    return os.path.join(os.path.abspath(output), "sweeps", name)
