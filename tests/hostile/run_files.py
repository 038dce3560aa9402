"""What a run leaves, with anything in the place of each of its parts: checkpoints, records, answers,
and how its training went."""

import json
import math
import shutil
from functools import partial

import numpy
import torch

import predict
import train
from results import check, table, templates
from results.report import __main__ as report
from tests.hostile import Case, typed
from tests.runs import record_of, sign
from trainers.common.record_file import read_record

CHECKPOINT = "prompt_learner/model.pth.tar-3"
HUGE = "x" * 100_000
VALUES = (None, True, -1, 0, 5, 2**70, 1e300, math.nan, math.inf, -math.inf, "", "x", "../x", HUGE, [], [None], {}, {"a": 1}, [[[]]])  # fmt: skip
PLAIN = [value for value in VALUES if not isinstance(value, float) or math.isfinite(value)]
DTYPES = "float64 float16 bfloat16 int64 uint8 bool complex64".split()


def tensors_like(value):
    """Name → what may be in the place of a tensor of prompts."""
    found = {name: partial(value.to, getattr(torch, name)) for name in DTYPES}
    found |= {
        "nan": lambda: torch.full(value.shape, math.nan),
        "inf": lambda: torch.full(value.shape, math.inf),
        "huge": lambda: torch.full(value.shape, 3e38),
        "meta": lambda: value.to("meta"),
        "sparse": lambda: value.to_sparse(),
        "transposed": lambda: value.transpose(0, -1).contiguous().transpose(0, -1),
        "with gradient": lambda: value.float().requires_grad_(),
        "longer": lambda: torch.stack([value, value]),
        "none": lambda: torch.empty(0),
        "flat": lambda: value.flatten(),
        "expanded": lambda: value.flatten()[:1].expand(value.numel()).reshape(value.shape),
        "claims": lambda: torch.zeros(1).expand(2**34),
    }
    return found


def checkpoints(folder):
    """Name → state that is in the place of a run's."""
    path = folder / CHECKPOINT
    state = torch.load(path, weights_only=True)
    found = {}
    for key in state:
        found[f"without {key}"] = lambda key=key: {
            name: state[name] for name in state if name != key
        }
        for value in (*VALUES, torch.zeros(2)):
            found[f"{key} is {str(value)[:20]}"] = lambda key=key, value=value: {
                **state,
                key: value,
            }
    learned = state["state_dict"]
    for name, value in learned.items():
        for kind, make in tensors_like(value).items():
            found[f"{name} is {kind}"] = lambda name=name, make=make: {
                **state,
                "state_dict": {**learned, name: make()},
            }
    return found


def files_of(run, place, name, write):
    """A copy of a run's folder in which a file is written anew."""
    folder = shutil.copytree(run, place / "run", dirs_exist_ok=True)
    write(folder / name)
    if name.startswith("predictions"):
        sign(folder)  # or nothing of the file would be looked at
    return folder


def with_checkpoint(run, place, make, then):
    folder = files_of(run, place, CHECKPOINT, lambda path: torch.save(make(), path))
    return then(folder)


def labelled(picture, folder):
    return typed(predict.main, "--run", folder, picture)()


def resumed(arguments, folder):
    for name in ("results.json", "predictions-test.npz", "predictions-val.npz"):
        (folder / name).unlink(missing_ok=True)
    said = typed(train.main, *arguments(folder), "OPTIM.MAX_EPOCH", 3)()
    if said.code == 0:  # what it leaves can be read
        read_record(folder / "results.json")
    return said


def checkpoint_cases(run, place, picture, arguments):
    """Of each the run labels a picture, and a training goes on from it.

    Args:
        arguments: folder → those of the training.
    """
    found = {}
    for name, make in checkpoints(run).items():
        for what, then in (
            ("labels", partial(labelled, picture)),
            ("resumes", partial(resumed, arguments)),
        ):
            found[f"{name}, {what}"] = Case(partial(with_checkpoint, run, place, make, then))
    return found


# ---- records ----


def paths_of(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict) and len(path) < 3:
            yield from paths_of(value, (*path, key))


def changed(tree, path, value):
    """A copy of nested dicts with another value, or without it where that is ``...``."""
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return copy


def with_record(run, place, record, then):
    folder = files_of(run, place, "results.json", lambda path: path.write_text(json.dumps(record)))
    return then(folder)


def record_cases(run, place, picture):
    """Of each value of a record: the run labels a picture, and is in a table and a report."""
    record = record_of(run)
    own = f"TRAINER.{record['trainer'].upper()}."
    found = {}

    def shown(folder):
        made = typed(report.main, folder, "--output", place / "report.html")()
        return made if made.code else typed(table.main, folder)()

    for number, path in enumerate(paths_of(record)):
        name = ".".join(path)
        if name.startswith("config.TRAINER.") and not name.startswith(f"config.{own}"):
            continue
        values = [..., PLAIN[number % len(PLAIN)], PLAIN[(7 * number + 3) % len(PLAIN)]]
        for value in values:
            then = partial(labelled, picture) if path[0] in ("config", "classnames") else shown
            new = changed(record, path, value)
            found[f"{name} is {str(value)[:20]}"] = Case(
                partial(with_record, run, place, new, then)
            )
    for key, value in (
        ("INPUT.SIZE", [4096, 4096]),
        ("INPUT.SIZE", [1024, 1024]),
        ("DATALOADER.TEST.BATCH_SIZE", 10**6),
        (f"{own}N_TEMPLATES", 1000),
        (f"{own}N_CTX", 1000),
        (f"{own}PROMPT_DEPTH", 1000),
        (f"{own}TEXT_CHUNK", 1),
    ):
        if (
            key.rpartition(".")[0] == own.strip(".")
            and key.split(".")[-1] not in record["config"]["TRAINER"][record["trainer"].upper()]
        ):
            continue
        path = ("config", *key.split("."))
        new = changed(record, path, value)
        new["config"]["MODEL"]["BACKBONE"]["INTERPOLATE_POSITIONS"] = True
        found[f"{key} is {value}"] = Case(
            partial(with_record, run, place, new, partial(labelled, picture))
        )
    return found


# ---- answers, and the course of a training ----


def with_arrays(run, place, file, arrays, then):
    folder = files_of(run, place, file, lambda path: numpy.savez(path, **arrays))
    return then(folder)


def answer_cases(run, place, picture):
    """Of arrays that lack one, or have another: tables, a report, the templates' tables, a threshold."""
    found = {}
    with numpy.load(run / "predictions-test.npz") as file:
        arrays = dict(file)
    shapes = ((), (0,), (3,), (24,), (2, 24), (24, 0), (1, 1, 1))
    kinds = ("int64", "float32", "U3", "bool", "complex64", "uint8", "float64")
    others = {
        name: [None, *(numpy.zeros(shape, kind) for shape in shapes for kind in kinds)]
        for name in arrays
    }
    reads = {
        "table": lambda folder: typed(table.main, folder)(),
        "report": lambda folder: typed(report.main, folder, "--output", place / "report.html")(),
        "templates": lambda folder: typed(templates.main, folder)(),
        "check": lambda folder: typed(check.main, folder)(),
        "threshold": lambda folder: typed(
            predict.main, "--run", folder, "--max-error", 0.5, picture
        )(),
    }
    number = 0
    for name, values in others.items():
        for value in values:
            number += 1
            kept = {key: array for key, array in arrays.items() if key != name}
            if value is not None:
                kept[name] = value
            for what, read in reads.items():
                if value is not None and (number + list(reads).index(what)) % 12:
                    continue
                file = f"predictions-{'val' if what == 'threshold' else 'test'}.npz"
                shown = "missing" if value is None else f"{value.dtype} {value.shape}"
                found[f"{name} is {shown}, {what}"] = Case(
                    partial(with_arrays, run, place, file, kept, read)
                )
    return found
