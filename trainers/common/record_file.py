"""Reads and validates run records, ``results.json``: the fields of a record that is returned here
have the types of ``record.yaml``."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .config_files import is_of
from .errors import UserError
from .fingerprints import data_name
from .readers import read_json, read_yaml

DOUBT = ("aurc", "error_auroc")  # of each measure of uncertainty
FILE_NAME = "results.json"
FORMAT = 1  # to be raised when a field changes its meaning
Record = dict[str, Any]  # results.json, see ``evaluation.testing.Evaluator.write_record``

SCHEMA = read_yaml(Path(__file__).with_name("record.yaml"))
TYPES = {"text": str, "whole": int, "number": float, "mapping": dict, "nothing": type(None)}
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


def read_record(path: str | Path) -> Record:
    """The run record in a file; its ``run`` says what the run is, see ``described``.

    Raises:
        UserError: it can't be read, is of another format, or a field is missing or of another kind.
    """
    try:
        record = read_json(path)
        for name in odd_fields(record, SCHEMA):
            raise ValueError(f"its {name or 'content'} is missing or of another kind")
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, this version reads {FORMAT}")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a valid run record ({error}): run it again") from error
    given = record["run"] if "run" in record else run_of_folder(Path(path).resolve().parent)
    return {**record, "run": described(record, given)}


def described(record: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is: its protocol and part (such as ``train_base``), data set, classes, trainer,
    recipe, ablation's row, shots and seed.

    Args:
        record: the other fields of its record.
        given: what is known besides; what is not stands in the record, and a run of no protocol has
            no part.
    """
    by_hand = {
        **dict.fromkeys(("protocol", "part", "recipe", "row")),
        "dataset": shown_name(record),
        **{name: record[name] for name in ("classes", "trainer", "shots", "seed")},
    }
    return {name: given.get(name, value) for name, value in by_hand.items()}


def protocol_of(part: str, is_row: bool = False) -> str:
    """The protocol of a part; of a training that several protocols share, one of them."""
    protocol = PROTOCOL_OF.get(part) or part.split("_from_")[0]
    return "ablation" if is_row and protocol == "base2new" else protocol


def run_of_folder(folder: Path) -> dict[str, Any]:
    """What the folder of a run tells of it, for records from before they said so; nothing where no
    protocol made it."""
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


def odd_fields(value: Any, schema: Any, name: str = "") -> Iterator[str]:
    """Yields the names of the fields that are missing or of another type than ``record.yaml`` says."""
    if isinstance(schema, str):
        if not any(is_of(TYPES[type_], value) for type_ in schema.split(" or ")):
            yield name
    elif type(value) is not type(schema) or value == []:
        yield name
    elif isinstance(schema, list):
        for item in value:
            yield from odd_fields(item, schema[0], name)
    else:
        for field, inner in schema.items():
            known = field.removesuffix("?")
            is_due = known == field or known in value
            for key in value if field == "*" else [known] * is_due:
                yield from odd_fields(value.get(key, ...), inner, f"{name}.{key}".strip("."))


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
    Path(folder, FILE_NAME).unlink(missing_ok=True)
