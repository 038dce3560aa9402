"""What measures of doubt are worth: on base classes, on classes that a model does not know, on corrupted images, before and after scaling.

    python -m analysis.uncertainty output/base2new [--format text|markdown|csv|latex|html] [--output FILE] [--root data]

Each trained base run below the folder is shown three groups of images, always with its base classes to choose from:

- ``base``: its own test images;
- ``new``: the test images of the new classes, to which every answer is wrong;
- ``corrupted``: the base images again, each with one kind of corruption at the severities 1 to 5 (``datasets/drawn/emoji_styles.py``).

Two files in the run's folder keep what was found, see ``analysis.image_groups``; while they belong to the run's prompts, backbone and
data, nothing is computed again.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.drawn.emoji_styles import SEVERITIES
from results.doubts import MEASURES, SCALED, Figures, read_figures
from results.render import render_all, run_table_command, table_arguments, write_out
from results.rows import HEADS, Key, Row, Table
from results.table import averages, place, read_records
from trainers.common.errors import UserError

PART = "train_base"  # of the protocol's folder
UNITS = {
    "energy": 1
}  # of the means in the tables: nats; the other measures lie in [0, 1] and stand there in percent
SCALINGS = ("before", "after", "by_distance")
CALIBRATION = {"ece": "ECE", "adaptive_ece": "adaptive ECE", "nll": "NLL", "brier": "Brier"}


def collect(folder: str | Path, root: str | Path | None = None) -> dict[Key, dict[int, Figures]]:
    """Figures of all base runs below a protocol's folder; computes those that are missing.

    Returns:
        (data set, shots, trainer, config) → seed → figures, see the module's docstring.

    Raises:
        UserError: there is no such run, or see ``image_groups.evaluate``.
    """
    part, runs = Path(folder) / PART, []
    for path, record in read_records(part):
        placed = place(PART, path, record)
        if placed is not None:
            runs.append((part / path.parent, record, placed[1]))
    if not runs:
        raise UserError(
            f"no trained base run below {part}: python run.py --protocol base2new makes them"
        )
    found: dict[Key, dict[int, Figures]] = {}
    for run, record, key in tqdm(runs, unit="run", disable=None):
        figures = read_figures(run, record)
        if figures is None:
            from .image_groups import (
                evaluate,
                write_figures,
            )  # here, since it takes seconds: wrong arguments are answered at once

            figures, arrays = evaluate(run, root)
            write_figures(run, record, figures, arrays)
        found.setdefault(key, {})[record["seed"]] = figures
    return found


def tables(found: Mapping[Key, dict[int, Figures]]) -> list[Table]:
    """Three tables of what ``collect`` found: what each measure tells apart, its means, and calibration."""
    apart, means, calibrated = [], [], []
    for key, seeds in found.items():
        accuracies = {
            seed: by_group({**one["accuracy"], "new": 0.0}) for seed, one in seeds.items()
        }  # no new class is among the answers
        means.append(make_row((*key, "accuracy"), accuracies))
        for name in MEASURES:
            having, own = (
                {seed: one["doubt"][name] for seed, one in seeds.items() if name in one["doubt"]},
                (*key, in_words(name)),
            )
            apart.append(make_row(own, {seed: told_apart(one) for seed, one in having.items()}))
            means.append(
                make_row(
                    own,
                    {
                        seed: by_group(one["mean"], UNITS.get(name, 100))
                        for seed, one in having.items()
                    },
                )
            )
        for classes in ("base", "new"):
            for when in SCALINGS:
                figures = {
                    seed: calibration_columns(one, classes, when) for seed, one in seeds.items()
                }
                calibrated.append(make_row((*key, classes, when.replace("_", " ")), figures))
    groups = ["base", "new", *map(severity_name, SEVERITIES)]
    made = [
        Table(
            "What doubt tells apart, AUROC in percent: wrong from right answers on base classes (errors), new classes and corrupted "
            "images, by severity, from those of base; AURC in percent",
            apart,
            ["errors", "AURC", *groups[1:]],
            heads=(*HEADS, "doubt"),
        ),
        Table(
            "Accuracy and mean doubt in percent (energy: in nats)",
            means,
            groups,
            heads=(*HEADS, "figure"),
        ),
        Table(
            "Calibration before and after temperature scaling, and by distance (DAC): ECE in percent, NLL in nats",
            calibrated,
            ["T", *CALIBRATION.values()],
            heads=(*HEADS, "classes", "scaling"),
        ),
    ]
    for table in made:
        table.rows = [row for row in table.rows if row.seeds(table.columns)]
        table.rows += averages(table)
    return made


def severity_name(severity: int) -> str:
    return f"corrupted {severity}"


def in_words(measure: str) -> str:
    return {SCALED: "max probability, scaled"}.get(measure, measure.replace("_", " "))


def told_apart(figures: Figures) -> dict[str, float | None]:
    """A measure's figures of one run by column."""
    severities = {
        severity_name(severity): value
        for severity, value in zip(SEVERITIES, figures["corrupted_auroc"])
    }
    return {
        "errors": figures["error_auroc"],
        "AURC": figures["aurc"],
        "new": figures["new_auroc"],
        **severities,
    }


def by_group(values: Mapping[str, Any], unit: float = 1) -> dict[str, float]:
    """``base``, ``new`` and the list ``corrupted`` by column, times ``unit``."""
    severities = {
        severity_name(severity): unit * value
        for severity, value in zip(SEVERITIES, values["corrupted"])
    }
    return {"base": unit * values["base"], "new": unit * values["new"], **severities}


def calibration_columns(figures: Figures, classes: str, when: str) -> dict[str, float]:
    """Temperature and calibration of one run by column; empty where it has none."""
    found = (figures["calibration"][classes] or {}).get(when)
    if found is None:
        return {}
    temperature = {"before": 1, "after": figures["temperature"]}.get(when, found.get("temperature"))
    return {"T": temperature, **{name: found[metric] for metric, name in CALIBRATION.items()}}


def make_row(key: Key, figures: Mapping[int, Mapping[str, float | None]]) -> Row:
    """figures: seed → column → value, None where it is not defined."""
    row = Row(key)
    for seed, columns in figures.items():
        for column, value in columns.items():
            if value is not None:
                row.values.setdefault(column, {})[seed] = value
    return row


def run(args: argparse.Namespace) -> None:
    """Prints the tables.

    Raises:
        UserError: see ``collect``.
    """
    write_out(render_all(tables(collect(args.folder, args.root)), args.format), args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(
        __doc__, "output/base2new, or where else the base-to-new protocol's runs lie"
    )
    parser.add_argument(
        "--root", help="folder of the data sets, where it is not the one that the runs had"
    )
    return run_table_command(run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
