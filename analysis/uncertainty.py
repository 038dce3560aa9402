"""How good the measures of uncertainty are: on base classes, on classes that a model does not know, on corrupted images, before and after scaling.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from results.kept import MEASURES, SCALED, Figures, read_figures
from results.render import render_all, run_table_command, table_arguments, write_out
from results.rows import HEADS, Key, Table
from results.runs import collect
from results.table import place, with_averages
from trainers.common.errors import UserError

PART = "train_base"  # of the protocol
# of the means in the tables: nats; the other measures lie in [0, 1] and stand there in percent
UNITS = {"energy": 1}
SCALINGS = ("before", "after", "by_distance")
CALIBRATION = {"ece": "ECE", "adaptive_ece": "adaptive ECE", "nll": "NLL", "brier": "Brier"}


def measured(folder: str | Path, root: str | Path | None = None) -> dict[Key, dict[int, Figures]]:
    """Figures of all trained base runs below a folder; computes those that are missing.

    Returns:
        (data set, shots, trainer, config) → seed → figures, see the module's docstring.

    Raises:
        UserError: there is no such run, or see ``image_groups.evaluate``.
    """
    placed = {
        run.folder: (run.record, found[1])
        for run in collect(folder)
        if run.record["run"]["part"] == PART and (found := place(run))
    }
    if not placed:
        raise UserError(
            f"no trained base run below {folder}: python run.py --protocol base2new makes them"
        )
    by_key: dict[Key, dict[int, Figures]] = {}
    for run, (record, key) in tqdm(placed.items(), unit="run", disable=None):
        figures = read_figures(run, record)
        if figures is None:
            # here, since it takes seconds: wrong arguments are answered at once
            from .image_groups import evaluate, write_figures

            figures, arrays = evaluate(run, root)
            write_figures(run, record, figures, arrays)
        by_key.setdefault(key, {})[record["seed"]] = figures
    return by_key


def tables(by_key: Mapping[Key, Mapping[int, Figures]]) -> list[Table]:
    """Three tables of what ``measured`` gives: what each measure tells apart, its means, and calibration."""
    runs = [(key, seed, run) for key, seeds in by_key.items() for seed, run in seeds.items()]
    severities = len(runs[0][2]["accuracy"]["corrupted"])
    groups = ["base", "new", *(f"corrupted {number}" for number in range(1, severities + 1))]

    def by_group(values: Mapping[str, Any], unit: float = 1) -> dict[str, float]:
        """``base``, ``new`` and the list ``corrupted`` by column, times ``unit``."""
        figures = (values["base"], values["new"], *values["corrupted"])
        return {group: unit * figure for group, figure in zip(groups, figures)}

    def apart(run: Figures) -> Iterator[tuple[Key, Mapping[str, float | None]]]:
        for name in (name for name in MEASURES if name in run["doubt"]):
            doubt = run["doubt"][name]
            against_base = zip(groups[1:], (doubt["new_auroc"], *doubt["corrupted_auroc"]))
            errors = {"errors": doubt["error_auroc"], "AURC": doubt["aurc"]}
            yield (plain_name(name),), {**errors, **dict(against_base)}

    def means(run: Figures) -> Iterator[tuple[Key, Mapping[str, float | None]]]:
        # no new class is among the answers
        yield ("accuracy",), by_group({**run["accuracy"], "new": 0.0})
        for name in (name for name in MEASURES if name in run["doubt"]):
            yield (plain_name(name),), by_group(run["doubt"][name]["mean"], UNITS.get(name, 100))

    def calibrated(run: Figures) -> Iterator[tuple[Key, Mapping[str, float | None]]]:
        for classes in ("base", "new"):
            for when in SCALINGS:
                figures = (run["calibration"][classes] or {}).get(when) or {}
                temperatures = {"before": 1, "after": run["temperature"]}
                temperature = temperatures.get(when, figures.get("temperature"))
                columns = {title: figures.get(name) for name, title in CALIBRATION.items()}
                yield (classes, when.replace("_", " ")), {"T": temperature, **columns}

    made = []
    for title, lines_of, columns, heads in (
        (
            "What doubt tells apart, AUROC in percent: wrong from right answers on base classes "
            "(errors), new classes and corrupted images, by severity, from those of base; AURC in "
            "percent",
            apart,
            ["errors", "AURC", *groups[1:]],
            ("doubt",),
        ),
        (
            "Accuracy and mean doubt in percent (energy: in nats)",
            means,
            groups,
            ("figure",),
        ),
        (
            "Calibration before and after temperature scaling, and by distance (DAC): ECE in "
            "percent, NLL in nats",
            calibrated,
            ["T", *CALIBRATION.values()],
            ("classes", "scaling"),
        ),
    ):
        lines = [
            (*key, *names, seed, column, value)
            for key, seed, run in runs
            for names, figures in lines_of(run)
            for column, value in figures.items()
        ]
        table = Table.of(title, (*HEADS, *heads), in_order(lines), columns)
        made.append(Table(title, with_averages(table.frame.dropna())))
    return made


def in_order(lines: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Lines of one trainer after another, each with the rows as they come up for its first seed."""
    first: dict[Any, int] = {}
    lines = list(lines)
    for line in lines:
        first.setdefault(line[:-3], len(first))
    return sorted(lines, key=lambda line: first[line[:-3]])


def plain_name(measure: str) -> str:
    return {SCALED: "max probability, scaled"}.get(measure, measure.replace("_", " "))


def run(args: argparse.Namespace) -> None:
    """Prints the tables.

    Raises:
        UserError: see ``measured``.
    """
    write_out(render_all(tables(measured(args.folder, args.root)), args.format), args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "output/base2new, or another folder with base-to-new runs")
    parser.add_argument("--root", help="folder of the data sets (default: that of the runs)")
    return run_table_command(run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
