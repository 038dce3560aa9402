"""How good the measures of uncertainty are, before and after scaling.

They are measured on base classes, on classes that a model does not know, and on corrupted images.

    python -m experiments.lab.uncertainty output/base2new --root data --format markdown

Each trained base run below the folder is shown three groups of images, always with its base classes
to choose from:

- ``base``: its own test images;
- ``new``: the test images of the new classes, to which every answer is wrong;
- ``corrupted``: the base images again, each with one kind of corruption at the severities 1 to 5
  (``datasets/drawn/emoji_styles.py``).

Two files in the run's folder keep what was found, see ``experiments.lab.image_groups``; while they belong
to the run's prompts, backbone and data, nothing is computed again.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import sys
from collections.abc import Sequence
from itertools import product

from tqdm import tqdm

from results.kept import (
    CALIBRATION,
    KEPT_MEASURES,
    SCALED,
    UncertaintyRecord,
    read_kept,
    write_kept,
)
from results.render import render_all, run_table_command, table_arguments
from results.rows import HEADS, Key, Line, Table
from results.runs import collect
from results.table import place, with_averages
from trainers.common.errors import UserError

SCALINGS = ("before", "after", "by_distance")
APART = (
    "What each measure tells apart, AUROC in percent: wrong from right answers on base classes "
    "(errors), new classes and corrupted images, by severity, from those of base; AURC in "
    "percent"
)
MEANS = "Accuracy and mean uncertainty in percent (energy: in nats)"
CALIBRATED = (
    "Calibration before and after temperature scaling, and by distance (DAC): ECE in "
    "percent, NLL in nats"
)
FURTHER_HEADS = {APART: ["measure"], MEANS: ["figure"], CALIBRATED: ["classes", "scaling"]}

Measured = tuple[Key, int, UncertaintyRecord]  # a run's row in the tables, its seed, its numbers


def measured(folder: str, root: str | None) -> list[Measured]:
    """Numbers of all trained base runs below a folder; computes those that are missing.

    Raises:
        UserError: there is no such run, or see ``image_groups.evaluate``.
    """
    placed = [
        (run, where[1])
        for run in collect(folder)
        if run.part == "train_base" and (where := place(run))
    ]
    if not placed:
        raise UserError(
            f"no trained base run below {folder}: python run.py --protocol base2new makes them"
        )
    runs = []
    for run, key in tqdm(placed, unit="run", disable=None):
        numbers = read_kept(run.folder, run.record)
        if numbers is None:
            # here, since it takes seconds: wrong arguments are answered at once
            from experiments.lab.image_groups import evaluate

            numbers, arrays = evaluate(run.folder, root)
            write_kept(run.folder, run.record, numbers, arrays)
        runs.append((key, run.seed, numbers))
    return runs


def uncertainty_tables(runs: Sequence[Measured]) -> list[Table]:
    """Three tables of what ``measured`` gives: what each measure tells apart, its means, and
    calibration.
    """
    lines: dict[str, list[Line]] = {title: [] for title in FURTHER_HEADS}
    for key, seed, run in runs:
        # no new class is among the answers
        accuracy = by_group(**run["accuracy"], new=0.0)
        lines[MEANS].append(((*key, "accuracy"), seed, accuracy))
        for name in KEPT_MEASURES:
            if name not in run["doubt"]:
                continue
            doubt = run["doubt"][name]
            # nats; the other measures lie in [0, 1] and stand there in percent
            unit = 1 if name == "energy" else 100
            measure = "max probability, scaled" if name == SCALED else name.replace("_", " ")
            row = (*key, measure)
            errors = {"errors": doubt["error_auroc"], "AURC": doubt["aurc"]}
            others = by_group(doubt["corrupted_auroc"], new=doubt["new_auroc"])
            lines[APART].append((row, seed, errors | others))
            means = by_group(**doubt["mean"])
            lines[MEANS].append((row, seed, {group: unit * means[group] for group in means}))
        for classes, when in product(("base", "new"), SCALINGS):
            numbers = (run["calibration"][classes] or {}).get(when) or {}
            temperatures = {"before": 1, "after": run["temperature"]}
            temperature = temperatures.get(when, numbers.get("temperature"))
            measures = {title: numbers.get(name) for name, title in CALIBRATION.items()}
            row = (*key, classes, when.replace("_", " "))
            lines[CALIBRATED].append((row, seed, {"T": temperature, **measures}))
    made = (
        Table.of(title, (*HEADS, *heads), lines[title]) for title, heads in FURTHER_HEADS.items()
    )
    return [Table(table.title, with_averages(table.by_seed)) for table in made]


def by_group(corrupted: Sequence[float], **others: float) -> dict[str, float]:
    """Numbers of groups of images by column; those of corrupted ones, by severity, come last."""
    return others | {f"corrupted {number}": value for number, value in enumerate(corrupted, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "output/base2new, or another folder with base-to-new runs")
    parser.add_argument("--root", help="folder of the data sets (default: that of the runs)")
    return run_table_command(
        parser,
        lambda args: render_all(uncertainty_tables(measured(args.folder, args.root)), args.format),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
