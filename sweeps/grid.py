"""What a sweep consists of: a grid out of a YAML file or arguments, as requests for runs and as chains of runs that depend on each other."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from protocols import plan
from protocols.plan import PROTOCOLS
from protocols.runs import Request, chains, default_output
from trainers.common.errors import UserError, nearest
from trainers.common.readers import read_yaml

KEYS = {
    "protocols": str,
    "trainers": str,
    "datasets": str,
    "seeds": int,
    "shots": int,
    "config": str,
    "rows": str,
    "options": dict,
}
PLACES = {"name": str, "root": str, "output": str}  # of the sweep as a whole
SINGLE = ("config", "options", *PLACES)
KINDS = {str: "a name", int: "a whole number", dict: "lines KEY: value"}  # for messages
DEFAULTS = {
    "datasets": ["openmoji"],
    "seeds": [1, 2, 3],
    "shots": None,
    "config": None,
    "rows": None,
    "options": {},
}


@dataclass(frozen=True, kw_only=True)
class Run(plan.Run):
    """A run and the request that it belongs to."""

    request: Request


@dataclass(frozen=True)
class Chain:
    """What one job of the sweep makes: a training and the tests of its prompts, in their order, or tests alone.

    Attributes:
        name: path of the training's folder below that of all runs.
        runs: list of ``Run``.
    """

    name: str
    runs: tuple[Run, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "runs": [asdict(run) for run in self.runs]}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Chain":
        def tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
            return {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in fields.items()
            }

        return cls(
            entry["name"],
            tuple(
                Run(**{**tuples(run), "request": Request(**tuples(run["request"]))})
                for run in entry["runs"]
            ),
        )


def read_file(path: str) -> dict[str, Any]:
    """A sweep's file as a dict of its keys.

    Raises:
        UserError: there is none, it isn't YAML, has a key that is not known, or a value of another type; the message names file and key.
    """
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        beside = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise UserError(f"sweep file {path} is missing{nearest(name, beside)}")
    try:
        found = read_yaml(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    found = check(path, found, {**KEYS, **PLACES, "grids": dict})
    grids = found.pop("grids", [{}])
    return {
        "name": os.path.splitext(os.path.basename(path))[0],
        **found,
        "grids": [check(f"{path}, grids", grid, KEYS) for grid in grids],
    }


def check(place: str, found: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The keys of a grid with every list a list.

    Raises:
        UserError: see ``read_file``.
    """
    if not isinstance(found, dict):
        raise UserError(f"{place}: it must hold lines KEY: value, with the keys {', '.join(kinds)}")
    checked = {}
    for key, value in found.items():
        if key not in kinds:
            raise UserError(
                f"{place}: unknown key {key!r}{nearest(key, kinds)}; known: {', '.join(kinds)}"
            )
        is_single = key in SINGLE
        values = value if isinstance(value, list) and not is_single else [value]
        if not values or not all(
            isinstance(item, kinds[key]) and not isinstance(item, bool) for item in values
        ):
            raise UserError(
                f"{place}: {key} must be {KINDS[kinds[key]]}{'' if is_single else ' or a list of such'}, not {value!r}"
            )
        checked[key] = value if is_single else values
    return checked


def requests(settings: Mapping[str, Any]) -> list[Request]:
    """The requests of a sweep: one for each protocol of each of its grids, and outside few-shot for each number of shots.

    Args:
        settings: as ``read_file`` gives them.

    Raises:
        UserError: protocols or trainers are missing, or a protocol is not known.
    """
    shared = {key: settings[key] for key in KEYS if key in settings}
    root, output = (
        os.path.abspath(settings.get(key, key_default))
        for key, key_default in (("root", "data"), ("output", "output"))
    )
    found: list[Request] = []
    for grid in settings["grids"]:
        grid = {**DEFAULTS, **shared, **grid}
        for key in ("protocols", "trainers"):
            if key not in grid:
                raise UserError(f"the sweep {settings['name']} lacks {key}: which shall run?")
        options = tuple(str(word) for pair in grid["options"].items() for word in pair)
        for protocol in grid["protocols"]:
            if protocol not in PROTOCOLS:
                raise UserError(
                    f"unknown protocol {protocol!r}{nearest(protocol, PROTOCOLS)}; known: {', '.join(PROTOCOLS)}"
                )
            several = (
                [grid["shots"]]
                if protocol == "fewshot" or not grid["shots"]
                else [[number] for number in grid["shots"]]
            )
            found += [
                Request(
                    protocol,
                    tuple(grid["trainers"]),
                    tuple(grid["datasets"]),
                    tuple(grid["seeds"]),
                    default_output(protocol, output),
                    shots and tuple(shots),
                    grid["config"],
                    grid["rows"] and tuple(grid["rows"]),
                    root,
                    options,
                )
                for shots in several
            ]
    return found


def make_chains(found: Iterable[Request], output: str) -> list[Chain]:
    """The chains of the runs that requests ask for; what two of them ask for is made once.

    Args:
        found: list of ``Request``; output: folder of all runs.

    Raises:
        UserError: two requests want the same folder for runs with other settings, or see ``Request.runs``.
    """
    runs: dict[str, Run] = {}
    for request in found:
        for run in request.runs():
            before = runs.setdefault(run.folder, Run(**vars(run), request=request))
            if before.request.arguments(before) != request.arguments(run):
                raise UserError(
                    f"two grids ask for {run.folder} with other settings: give one of them another config"
                )
    made = []
    for chain in chains(runs.values()):
        trained = chain[0].model or chain[0].folder
        made.append(
            Chain(os.path.relpath(trained, output), tuple(runs[run.folder] for run in chain))
        )
    return made
