"""Reads and validates run records, ``results.json``: the fields of a record that is returned here
have the types of ``record.yaml``."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy

from .config_files import is_of
from .console import counted
from .errors import UserError, raise_machines
from .files import file_hash
from .fingerprints import data_name
from .readers import Stored, read_arrays, read_json, read_yaml

RECORD_FILE = "results.json"
ZERO_SHOT = "ZeroshotCLIP"  # the trainer that trains nothing
PICTURES = "pictures.json"  # of one's own images: which a run has, and their labels
ROUNDS = "rounds"  # folder, in that of a run, of the rounds before it
OWNER = "cdc_run.txt"  # marks a run's folder, for ``files.check_folder``
FORMAT = 2  # to be raised when a field, or a trainer's name, changes its meaning
# p-values of an answer up to which its picture is unlike the run's, as fp32 has it
UNFAMILIAR = float(numpy.float32(0.05))
MULTI_LABEL = "multi-label"  # ``task`` of a run whose pictures may have several labels, or none
Record = dict[str, Stored]  # results.json, as ``engine.testing.Evaluator.write_record`` writes it

SCHEMA = read_yaml(Path(__file__).with_name("record.yaml"))
LONGEST_TEXT = 4096  # characters of a text, as of a path
KINDS: dict[str, Callable[[Stored], bool]] = {
    "text": lambda value: is_of(str, value) and len(value) <= LONGEST_TEXT,
    "whole": lambda value: is_of(int, value),
    "count": lambda value: is_of(int, value) and 0 <= value < 2**53,
    "number": lambda value: is_of(float, value),
    "percent": lambda value: is_of(float, value) and 0 <= value <= 100,
    "mapping": lambda value: is_of(dict, value),
    "nothing": lambda value: value is None,
    "multi-label": lambda value: value == MULTI_LABEL,
}


def answers_file(split: str) -> str:
    """Name of the file of a run's answers to the images of a split: train, val or test."""
    return f"predictions-{split}.npz"


def read_answers(
    folder: str | Path, split: str, record: Mapping[str, Stored]
) -> dict[str, numpy.ndarray]:
    """A run's answers to the images of a split, arrays by name.

    record: the run's; {} where it has none.

    Raises:
        ValueError: it is another run's file, or was changed: its hash is not in the record.
        Exception: of any kind, as ``read_arrays``.
    """
    return read_kept(f"{folder}/{answers_file(split)}", nested(record, "answers", split))


def read_kept(path: str, digest: object) -> dict[str, numpy.ndarray]:
    """A file of arrays that a run has left, by name.

    digest: its hash, by the run's record.

    Raises:
        ValueError: it has another hash; Exception: of any kind (``read_arrays``).
    """
    if file_hash(path) != digest:
        raise ValueError(f"it is not as this run has left it: {RECORD_FILE} lacks its hash")
    return read_arrays(path)


def read_record(path: str | Path) -> Record:
    """The run record in a file.

    Raises:
        UserError: it can't be read, is of another format, or a field is missing or of another kind.
    """
    try:
        record: Record = read_json(path)
        for name in odd_fields(record, SCHEMA):
            raise ValueError(f"its {name or 'content'} is missing or of another kind")
        if record["format"] != FORMAT:
            version = f"commit {(record['git_commit'] or 'unknown')[:7]}"
            raise ValueError(f"of {version}, whose format is {record['format']} and not {FORMAT}")
    except (OSError, ValueError) as error:
        raise_machines(error, path)
        raise UserError(
            f"{path} is no run record of this version ({error}): use the version that wrote it, or "
            "delete its folder and run it again"
        ) from error
    return record


def finished_record(folder: str) -> Record:
    """The record of the run in a folder.

    Raises:
        UserError: there is none; or as ``read_record``.
    """
    path = Path(folder, RECORD_FILE)
    if not path.is_file():
        former = Path(folder, ROUNDS)
        such = f", such as one in {former}" if former.is_dir() else ""
        raise UserError(
            f"{folder} holds no finished run, there is no {RECORD_FILE}: give the folder of a training that has ended{such}"
        )
    return read_record(path)


def is_multi_label(record: Record) -> bool:
    """Whether a picture of the run may have several labels, or none."""
    return record.get("task") == MULTI_LABEL


def stands_for_others(record: Record) -> bool:
    """Whether a run's tested pictures are like those to come: their copies were found, and nobody chose them by
    how certain they are."""
    return "found_in_part" not in record and "is_chosen" not in record


def describe(record: Record, given: Mapping[str, object]) -> dict[str, object]:
    """Describe a run: its protocol and part (such as ``train_base``), data set, classes, trainer,
    recipe, ablation's row, shots and seed.

    Args:
        record: the other fields of its record.
        given: further known facts; the others are read from the record, and a run without a protocol has
            no part.
    """
    by_hand = {
        **dict.fromkeys(("protocol", "part", "recipe", "row")),
        "dataset": shown_name(record),
        **{name: record[name] for name in ("classes", "trainer", "shots", "seed")},
    }
    return {name: given.get(name, value) for name, value in by_hand.items()}


def odd_fields(value: Stored, schema: Stored, name: str = "") -> Iterator[str]:
    """Yields the names of the fields that are missing or of another type than ``record.yaml`` says."""
    if isinstance(schema, str):
        if not any(KINDS[kind](value) for kind in schema.split(" or ")):
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


def nested(record: Stored, *keys: str) -> Stored:
    """Return the value under a path of keys; None where it is missing."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def shown_name(record: Record) -> str:
    """Return the name of a run's data set, by ``data_name``."""
    root = nested(record, "config", "DATASET", "ROOT")
    return data_name(record["dataset"], root) if isinstance(root, str) else record["dataset"]


def tested_on(record: Record, images: int) -> str:
    """Say on which images a run's accuracy was measured: held-out ones, or all."""
    folds = record.get("folds")
    noun = "picture" if is_multi_label(record) else "image"
    if not folds:
        return counted(images, f"test {noun}")
    return f"all {counted(images, noun)} by {folds}-fold cross-validation"


def remove_record(folder: str) -> None:
    """Deletes the record, which marks the run as not done."""
    Path(folder, RECORD_FILE).unlink(missing_ok=True)
