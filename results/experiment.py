"""Runs of one experiment: settings that all runs of a table's row share, differences between its
columns, and the rule that no run counts twice. docs/measures.md lists the differences that are not said.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from trainers.common.console import first_few
from trainers.common.errors import UserError
from trainers.common.record_file import Record, nested
from trainers.common.same_run import NO_MATTER, config_of_run, differing

# already said by a row's head or a column, and files whose content is held by a hash
OF_ITS_PLACE = """
    SEED DATASET.NAME DATASET.NUM_SHOTS DATASET.SUBSAMPLE_CLASSES DATASET.FACTORS TEST.OPEN
    DATASET.DESCRIPTIONS MODEL.BACKBONE.NAME
""".split()
TEST_IMAGES = "test images"
CLASS_COUNT = "classes"
# trainers and recipes have settings of their own; in these a difference makes rows no comparison
BETWEEN_ROWS = {TEST_IMAGES, CLASS_COUNT, "INPUT.SIZE", "TEST.FINAL_MODEL"}
ByColumn = dict[tuple[object, ...], Record]  # of a row's runs of one seed


def facts_of(record: Record) -> dict[str, str]:
    """Return the facts of a run's experiment, by name: its settings, commit, precision, device, CLIP, and how
    many test images and classes there were."""
    return {
        **config_of_run(record["config"], [*NO_MATTER, *OF_ITS_PLACE]),
        "commit": (record["git_commit"] or "unknown")[:10],
        "precision": record["precision"],
        "device": str(nested(record, "gpu", "name") or record["device"]),
        "the CLIP's weights": str(record["backbone_hash"])[:10],
        TEST_IMAGES: str(nested(record, "metrics", "test", "images")),
        CLASS_COUNT: str(len(record["classnames"])),
    }


def changes_between(first: Record, second: Record) -> list[str]:
    """Return ``NAME first's → second's`` for each fact that differs between two runs though it need not.
    Data sets differ in settings, images and classes, and the halves of a data set in images and classes. A
    fact that one of the runs lacks does not count.
    """
    then = facts_of(first)
    now = facts_of(second)
    keys = then.keys() & now.keys()
    is_same_data = first["run"]["dataset"] == second["run"]["dataset"]
    if not is_same_data or first["run"]["classes"] != second["run"]["classes"]:
        keys -= {TEST_IMAGES, CLASS_COUNT}
    if not is_same_data:
        keys = {key for key in keys if not key.startswith("DATASET.")}
    return differing(now, then, keys)


def split(records: Sequence[Record]) -> list[list[int]]:
    """Divide the seeds of a row's runs into groups, one per experiment: within a group, runs of one column
    differ in no fact that counts.
    """
    by_seed = by_seed_and_column(records)
    groups: list[list[int]] = []
    for seed, mine in sorted(by_seed.items()):
        for group in groups:
            if not any(separating(by_seed[other], mine) for other in group):
                group.append(seed)
                break
        else:
            groups.append([seed])
    return groups


def by_seed_and_column(records: Iterable[Record]) -> dict[int, ByColumn]:
    """Return the records by seed, and by tested part."""
    found: dict[int, ByColumn] = {}
    for record in records:
        run = record["run"]
        column = tuple(run[name] for name in ("part", "dataset", "classes", "shots"))
        found.setdefault(record["seed"], {})[column] = record
    return found


def separating(first: ByColumn, second: ByColumn) -> list[str]:
    """The differences of two seeds' runs, by column, in the columns that both have."""
    pairs = [(first[column], second[column]) for column in first if column in second]
    return [change for pair in pairs for change in changes_between(*pair)]


def seeds_in_words(seeds: Sequence[int]) -> str:
    """``seed 1``, ``seeds 1, 2``."""
    word = "seed" if len(seeds) == 1 else "seeds"
    return f"{word} {first_few([*map(str, seeds)])}"


def why_split(records: Sequence[Record], groups: Sequence[Sequence[int]]) -> str:
    """Describe the difference between the first two of the groups that ``split`` gives."""
    by_seed = by_seed_and_column(records)
    changed = [*dict.fromkeys(separating(*(by_seed[group[0]] for group in groups[:2])))]
    return f"{seeds_in_words(groups[0])} and {seeds_in_words(groups[1])} differ in {first_few(changed)}"


def notes_on_columns(cells: Iterable[tuple[str, Mapping[Any, Record]]]) -> list[str]:
    """Return a line for each difference between the columns of rows.

    cells: a row's name, and a run of each of its columns, whose first the others are held against.
    """
    rows_of: dict[str, list[str]] = {}
    for row, records in cells:
        (first, reference), *others = records.items()
        said = [
            (column, first_few(changes))
            for column, record in others
            if (changes := changes_between(reference, record))
        ]
        for changes, columns in groupby(said, key=lambda pair: pair[1]):
            names = first_few([str(column) for column, _ in columns])
            rows_of.setdefault(f"{first} and {names} differ in {changes}", []).append(row)
    return [f"{text}: {first_few(rows)}." for text, rows in rows_of.items()]


def notes_on_rows(cells: Iterable[tuple[str, object, Record]]) -> list[str]:
    """Return a line for each difference in ``BETWEEN_ROWS`` from the first row that has the same cell.

    cells: a row's name, the data set, shots and column of a cell, and a run of it.
    """
    first: dict[object, tuple[str, Record]] = {}
    rows_of: dict[str, list[str]] = {}
    for row, cell, record in cells:
        name, reference = first.setdefault(cell, (row, record))
        if row == name:
            continue
        then = facts_of(reference)
        now = facts_of(record)
        keys = BETWEEN_ROWS & then.keys() & now.keys()
        if changes := differing(now, then, keys):
            rows = rows_of.setdefault(f"{name} and other rows differ in {first_few(changes)}", [])
            if row not in rows:
                rows.append(row)
    return [f"{text}: {first_few(rows)}." for text, rows in rows_of.items()]


def refuse_twice(places: Iterable[tuple[tuple[object, ...], object]]) -> None:
    """Refuse a result that is there twice.

    Args:
        places: its names (trainer, data set, shots, seed …), and its folder.

    Raises:
        UserError: it names both places.
    """
    first: dict[tuple[object, ...], object] = {}
    for key, place in places:
        if key in first:
            what = ", ".join(str(part) for part in key if part not in (None, ""))
            raise UserError(
                f"one run, twice ({what}): {first[key]} and {place}: keep one of them, or name the "
                "folders or files without the other"
            )
        first[key] = place
