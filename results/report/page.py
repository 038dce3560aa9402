"""The page of a report: one HTML file with everything in it, and its figures as PNG and SVG beside it."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from tabulate import tabulate
from tqdm import tqdm

from trainers.common.errors import UserError
from trainers.common.files import write_text
from trainers.common.record_file import shown_name

from ..render import render
from ..rows import Key, Row, Table
from ..runs import Run, Series, Setting, find_runs, group, titles, with_answers
from ..table import collect
from .classes import class_page, headlines, is_zero_shot
from .figures import (
    THEMES,
    Figure,
    answer_figures,
    table_figures,
    training_figures,
    vacuity_figures,
    write_figure,
)
from .gallery import check_root, find_images, gallery
from .inspections import Inspections, with_templates
from .template_figures import template_figures
from .template_tables import accuracy_tables, word_tables

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("report_template.html")
CALIBRATION = {
    "accuracy": "accuracy",
    "ece": "ECE",
    "adaptive_ece": "adaptive ECE",
    "nll": "NLL",
    "brier": "Brier",
}
Inspect = Callable[
    [list[Series], str | None], Inspections
]  # ``analysis.inspection.inspect_all``, which loads models
DOUBT = {"aurc": "AURC", "error_auroc": "error AUROC"}
TEMPLATES = "Do the templates differ?"
READING = {  # of the tables that stand in a section
    "accuracy": "S1, S2 …: a template's own vote counts alone; fused: the model's answer; oracle: an image counts where at least one "
    "template is right, which no fusion can exceed if it takes one of the votes.",
    "words": "Euclidean distances in CLIP's table of tokens. Between words: how far a word is from the nearest other one (median). A "
    "context token farther than that from its nearest word is like no word, and the words beside it explain little.",
}


class Notes(logging.Handler):
    """Keeps the warnings that come up while a report is made: whoever reads it has to know them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in self.texts:
            self.texts.append(record.getMessage())


def protocol_tables(runs: Sequence[Run], folders: Sequence[str | Path]) -> list[Table]:
    """The tables of the protocols whose folders lie in or below the given ones; with the folder in the title where there are several."""
    given = [Path(folder).resolve() for folder in folders]
    protocols = dict.fromkeys(
        run.protocol
        for run in runs
        if run.protocol
        and any(run.protocol == folder or folder in run.protocol.parents for folder in given)
    )
    found = []
    for protocol in protocols:
        try:
            made = collect(protocol)
        except (
            UserError
        ) as error:  # its runs were tested on other images, or other classes, than a table is of
            log.warning("no table: %s", error)
            continue
        for table in made:
            table.title += f" ({protocol.name})" if len(protocols) > 1 else ""
        found += made
    return [table for table in found if table.rows]


def measured_tables(series: list[Series], named: dict[Setting, str]) -> list[Table]:
    """Calibration, and what each measure of doubt is worth: a row for each series, and for each of its measures; named: see ``titles``."""
    calibration: list[Row] = []
    doubt: dict[Key, Row] = {}
    for one in series:
        row = Row((named[one.setting], one.name))
        for run in one.runs:
            seed = run.record["seed"]
            for key, column in CALIBRATION.items():
                if key in run.metrics:
                    row.values.setdefault(column, {})[seed] = run.metrics[key]
            for measure, values in run.metrics.get("uncertainty", {}).items():
                for key, column in DOUBT.items():
                    if values[key] is not None:
                        key_of_row = (named[one.setting], one.name, measure.replace("_", " "))
                        doubt.setdefault(key_of_row, Row(key_of_row)).values.setdefault(column, {})[
                            seed
                        ] = values[key]
        calibration.append(row)
    made = [
        Table("Calibration", calibration, list(CALIBRATION.values()), heads=("tested on", "model")),
        Table(
            "Doubt", list(doubt.values()), list(DOUBT.values()), heads=("tested on", "model", "by")
        ),
    ]
    for table in made:
        table.rows = [row for row in table.rows if row.seeds(table.columns)]
    return [table for table in made if table.rows]


def list_runs(runs: Sequence[Run]) -> str:
    """An HTML table of the runs: where each number comes from."""
    common = os.path.commonpath([run.folder.parent for run in runs])
    lines = [
        [
            os.path.relpath(run.folder, common),
            shown_name(run.record),
            run.record["classes"],
            run.record["seed"],
            *(
                f"{run.metrics[name]:.2f}" if name in run.metrics else ""
                for name in ("accuracy", "macro_f1")
            ),
            run.record.get("parameters", {}).get("learnable", ""),
            (run.record.get("git_commit") or "")[:10],
            run.record.get("finished", ""),
        ]
        for run in runs
    ]
    return tabulate(
        lines,
        tablefmt="html",
        disable_numparse=True,
        colalign=("left",) * 3 + ("right",) * 4 + ("left",) * 2,
        headers=(
            "run",
            "data set",
            "classes",
            "seed",
            "accuracy",
            "macro F1",
            "learnable",
            "commit",
            "finished",
        ),
    )


def make_sections(
    series: list[Series],
    named: dict[Setting, str],
    tables: Sequence[Table],
    inspections: Inspections,
) -> dict[str, tuple[list[tuple[Table, str]], list[Figure]]]:
    """Title → its tables, each with a sentence on how to read it, and its figures; those sections that have any."""
    answered = with_answers(series)
    voting = with_templates(answered)
    names = [
        *(one.name for one in series),
        *(" ".join(row.key[2:]) for table in tables for row in table.rows),
    ]
    colours = {
        name: f"C{number}" for number, name in enumerate(dict.fromkeys(names))
    }  # a model has the same one everywhere
    sections = {
        "Accuracy": table_figures(tables, colours),
        "Can its probabilities be trusted?": answer_figures(answered, named, colours),
        "Evidence": vacuity_figures(answered, named),
        TEMPLATES: template_figures(voting, named, inspections),
        "Training": training_figures(series, named, colours),
    }
    own = {
        TEMPLATES: [
            *((table, READING["accuracy"]) for table in accuracy_tables(voting, named)),
            *((table, READING["words"]) for table in word_tables(voting, named, inspections)),
        ]
    }
    return {
        title: (own.get(title, []), found)
        for title, figures in sections.items()
        if (found := list(figures))
    }


def with_pictures(
    series: list[Series], named: dict[Setting, str], root: str | None
) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]:
    """(title, ``class_page``) of each series that has answers, trained ones first, and (title, gallery) of the first seed of each, those with
    templates' votes first."""
    answered = with_answers(series)
    runs = {one.runs[0].record["dataset"]: one.runs[0] for one in answered}
    images = {data: find_images(run, root) if root else {} for data, run in runs.items()}

    def of(one: Series) -> dict[str, str]:
        return images[one.runs[0].record["dataset"]]

    return (
        [
            (f"{one.name}, {named[one.setting]}", class_page(one, of(one)))
            for one in sorted(answered, key=is_zero_shot)
        ],
        [
            (
                f"{one.name}, {named[one.setting]}, seed {one.runs[0].record['seed']}",
                gallery(one.runs[0], of(one)),
            )
            for one in sorted(answered, key=lambda one: not one.has("vote"))
        ],
    )


def make_report(
    folders: Sequence[str | Path], output: str | Path, inspect: Inspect, root: str | None = None
) -> None:
    """Writes the report to ``output`` and its figures to the folder ``<output without its ending>_figures``.

    Args:
        folders: of runs, or that have runs below them; inspect: looks into the models whose templates vote.
        root: folder of the data sets; None: what needs images is left out.

    Raises:
        UserError: no run in or below one of the folders, a file of a run can't be read, or there is no folder ``root``.
    """
    check_root(root)
    notes = Notes()
    packages = [logging.getLogger(name) for name in ("results", "analysis")]
    for package in packages:
        package.addHandler(notes)
    try:
        runs = find_runs(folders)
        tables = protocol_tables(runs, folders)
        without = sum(run.answers is None for run in runs)
        if without:
            log.warning(
                "%d of %d runs have no predictions-test.npz: they are missing wherever single images count",
                without,
                len(runs),
            )
        series, named = group(runs), titles([run.setting for run in runs])
        inspections = inspect(with_templates(with_answers(series)), root)
        sections = make_sections(series, named, tables, inspections)
        class_pages, galleries = with_pictures(series, named, root)
    finally:
        for package in packages:
            package.removeHandler(notes)
    figures_folder = str(Path(output).absolute().with_suffix("")) + "_figures"
    taken: set[str] = set()
    with tqdm(
        total=sum(len(figures) for _, figures in sections.values()), unit="figure", disable=None
    ) as bar:
        drawn: dict[str, list[tuple[Figure, dict[str, str]]]] = {title: [] for title in sections}
        for title, (_, figures) in sections.items():
            for figure in figures:
                drawn[title].append((figure, write_figure(figure, figures_folder, taken)))
                bar.update()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        folders=[str(folder) for folder in folders],
        runs=runs,
        notes=notes.texts,
        themes=THEMES,
        sections=drawn,
        own_tables={
            title: [(table.title, render(table, "html"), reading) for table, reading in own]
            for title, (own, _) in sections.items()
        },
        headlines=headlines(series, named),
        class_pages=class_pages,
        galleries=galleries,
        root=root,
        tables=[(table, render(table, "html")) for table in tables],
        list_runs=list_runs(runs),
        measured={table.title: render(table, "html") for table in measured_tables(series, named)},
    )
    write_text(str(Path(output).absolute()), page)
