"""Reads and validates run records, ``results.json``: the fields of a record that is returned here have the types they should have."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .config_files import is_of
from .errors import UserError
from .fingerprints import data_name
from .readers import read_json

DOUBT = ("aurc", "error_auroc")  # of each measure of uncertainty
FILE_NAME = "results.json"
FORMAT = 1  # to be raised when a field changes its meaning
Record = dict[str, Any]  # results.json, see ``evaluation.testing.Evaluator.write_record``

Types = type | tuple[type, ...]
TEXT_OR_NOTHING = (str, type(None))
REQUIRED: dict[str, Types] = {
    "trainer": str,
    "dataset": str,
    "classes": str,
    "shots": int,
    "seed": int,
    "metrics": dict,
    "config": dict,
    "prompts_hash": TEXT_OR_NOTHING,
    "backbone_hash": TEXT_OR_NOTHING,
    "split_hash": TEXT_OR_NOTHING,
}
OPTIONAL: dict[str, Types] = {
    "classnames": list,
    "notes": list,
    "parameters": dict,
    "learned": dict,
    "seconds": dict,
    "skipped_images": dict,
    "precision": str,
    "fewshot_sample": (dict, type(None)),
    "run": dict,
    "git_commit": TEXT_OR_NOTHING,
    "finished": TEXT_OR_NOTHING,
    "seconds_per_step": (int, float, type(None)),
    "test_images_per_second": (int, float, type(None)),
}
RUN: dict[str, Types] = {
    "protocol": TEXT_OR_NOTHING,
    "part": TEXT_OR_NOTHING,
    "dataset": str,
    "classes": str,
    "trainer": str,
    "recipe": TEXT_OR_NOTHING,
    "row": TEXT_OR_NOTHING,
    "shots": int,
    "seed": int,
}  # of the field ``run``, see ``described``
PROTOCOL_OF = {
    "train_base": "base2new",
    "test_new": "base2new",
    "test_open": "open",
    "train_biased": "factors",
    "test_independent": "factors",
    "test_reversed": "factors",
    "train_all": "fewshot",
    "train_source": "xd",
    "test_all": "zeroshot",
}
# Where a run of a protocol lies, from which records without ``run`` tell what they are.
LAYOUT = re.compile(
    rf"({'|'.join(PROTOCOL_OF)}|(?:xd|dg)_from_[^/]+)/([^/]+)/shots_(-?\d+)/[^/]+/([^/]+)/seed-?\d+"
)
RECIPE = re.compile(r"tiny|vit_|rn\d")  # a recipe's name starts with its backbone, a row's doesn't
NUMBERS = (
    "accuracy",
    "macro_f1",
    "ece",
    "adaptive_ece",
    "nll",
    "brier",
    "mean_vacuity",
    "mean_conflict",
)  # of a split's metrics


def read_record(path: str | Path) -> Record:
    """The run record in a file; its ``run`` says what the run is, see ``described``.

    Raises:
        UserError: it can't be read, is of another format, or a field is missing or of another kind.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a valid run record ({error}): run it again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(
            f"{path} has the format {record.get('format') if isinstance(record, dict) else None}, this version "
            f"reads {FORMAT}: run it again"
        )
    odd = next(odd_fields(record), None)
    if odd is not None:
        raise UserError(
            f"{path} is not a valid run record (its {odd} is missing or of another kind): run it again"
        )
    given = record["run"] if "run" in record else run_of_folder(Path(path).resolve().parent)
    return {**record, "run": described(record, given)}


def described(record: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is: its protocol and part (such as ``train_base``), data set, classes, trainer, recipe, ablation's row, shots and seed.

    Args:
        record: the other fields of its record.
        given: what is known besides; what is not stands in the record, and a run of no protocol has no part.
    """
    by_hand = {
        **dict.fromkeys(("protocol", "part", "recipe", "row")),
        "dataset": shown_name(record),
        **{name: record[name] for name in ("classes", "trainer", "shots", "seed")},
    }
    return {name: given.get(name, by_hand[name]) for name in RUN}


def protocol_of(part: str, is_row: bool = False) -> str:
    """The protocol of a part; of a training that several protocols share, one of them."""
    protocol = PROTOCOL_OF.get(part) or part.split("_from_")[0]
    return "ablation" if is_row and protocol == "base2new" else protocol


def run_of_folder(folder: Path) -> dict[str, Any]:
    """What the folder of a run tells of it, for records from before they said so; nothing where no protocol made it."""
    match = LAYOUT.fullmatch("/".join(folder.parts[-6:]))
    if match is None:
        return {}
    part, dataset, shots, name = match.groups()
    is_row = folder.parts[-7:-6] == ("ablation",) or (
        protocol_of(part) == "factors" and not RECIPE.match(name)
    )
    return {
        "protocol": protocol_of(part, is_row),
        "part": part,
        "dataset": dataset,
        "shots": int(shots),
        "row" if is_row else "recipe": name,
    }


def odd_fields(record: Mapping[str, Any]) -> Iterator[str]:
    """Yields the names of fields that are missing or of another type than a run leaves them."""
    # a field that is missing is of no type
    odd = of_other_types({**dict.fromkeys(REQUIRED, ...), **record}, REQUIRED | OPTIONAL)
    if odd:
        yield from odd
        return
    if not isinstance(nested(record, "config", "MODEL", "BACKBONE", "NAME"), str):
        yield "config.MODEL.BACKBONE.NAME"
    if "classnames" in record and not are_names(record["classnames"]):
        yield "classnames"
    if not all(isinstance(names, list) for names in record.get("skipped_images", {}).values()):
        yield "skipped_images"
    yield from (f"run.{name}" for name in of_other_types(record.get("run", {}), RUN))
    for split, metrics in record["metrics"].items():
        yield from (f"metrics.{split}{name}" for name in odd_metrics(metrics))


def of_other_types(record: Mapping[str, object], types: Mapping[str, Types]) -> list[str]:
    """The fields that a record has with a value of none of their types; truth values are of none."""
    return [
        name
        for name, taken in types.items()
        if name in record
        and (not isinstance(record[name], taken) or isinstance(record[name], bool))
    ]


def are_names(classnames: Sequence[object]) -> bool:
    """Whether these can be a run's classes."""
    return len(classnames) > 0 and all(isinstance(name, str) for name in classnames)


def odd_metrics(metrics: object) -> Iterator[str]:
    """The same for the metrics of a split."""
    if not isinstance(metrics, dict):
        yield ""
        return
    yield from (f".{name}" for name in NUMBERS if not is_of(float, metrics.get(name, 0)))
    per_class, doubts = metrics.get("per_class_accuracy", {}), metrics.get("uncertainty", {})
    if not isinstance(per_class, dict) or not all(is_of(float, of) for of in per_class.values()):
        yield ".per_class_accuracy"
    # as ``uncertainty.doubt`` gives them: two numbers, or nothing in the place of one
    if not isinstance(doubts, dict) or not all(
        isinstance(doubt, dict)
        and doubt.keys() >= {*DOUBT}
        and all(doubt[name] is None or is_of(float, doubt[name]) for name in DOUBT)
        for doubt in doubts.values()
    ):
        yield ".uncertainty"


def finite(value: object) -> float | None:
    """The number, or None for all else."""
    return value if isinstance(value, (int, float)) and is_of(float, value) else None


def nested(record: Any, *keys: str) -> Any:
    """What stands under a path of keys; None where there is none."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def shown_name(record: Mapping[str, Any]) -> str:
    """What a run's data set is called, see ``data_name``."""
    root = nested(record, "config", "DATASET", "ROOT")
    return data_name(record["dataset"], root) if isinstance(root, str) else record["dataset"]


def remove_record(folder: str) -> None:
    """Deletes the record, which marks the run as not done."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{folder}/{FILE_NAME}")
