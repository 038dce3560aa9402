"""The page of a report: one HTML file with everything in it, and its figures as SVG beside it."""

import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import BufferingHandler
from pathlib import Path

import jinja2
from tqdm import tqdm

from results.kept import CALIBRATION
from results.render import render
from results.rows import SERIES_HEADS, Line, Table
from results.runs import FinishedRun, RunSeries, collect, group, with_answers
from results.svg import INKS, PAPERS
from results.table import tables
from trainers.common.console import counted, csv_text, first_few
from trainers.common.errors import UserError
from trainers.common.files import check_output, write_text
from trainers.evaluation.figures import decimal

from .classes import Headline, class_page, headlines
from .figures import (
    Figure,
    answer_figures,
    curve_figures,
    training_figures,
    vacuity_figures,
    write_figure,
)
from .gallery import (
    LIST_COLUMNS,
    LISTED,
    NEXT,
    WRONG_LABELS,
    check_root,
    find_images,
    gallery,
    listed,
)

log = logging.getLogger(__name__)

MARK = "<!DOCTYPE html>\n<!-- A report of CDC for prompt learning -->\n"  # begins the template
CALIBRATION_COLUMNS = {"accuracy": "accuracy"} | CALIBRATION
MEASURED_BY = {"aurc": "AURC", "error_auroc": "error AUROC"}
# gives figures of series that have answers; its second argument: data set → image → path
MoreFigures = Callable[[list[RunSeries], dict[str, dict[str, str]]], Iterable[Figure]]


def protocol_tables(folders: Sequence[str | Path]) -> list[Table]:
    """The tables of the protocols whose runs lie in or below each folder; with the folder in the
    title where there are several.
    """
    made = []
    for folder in folders:
        with suppress(UserError):  # its runs belong to no protocol, or have no accuracy
            for table in tables(collect(folder)):
                if len(folders) > 1:
                    table.title += f" ({Path(folder).name})"
                made.append(table)
    return [table for table in made if len(table.frame)]


def measured_tables(series: list[RunSeries]) -> list[Table]:
    """Calibration, and what each measure of uncertainty is worth: a row for each series, and for
    each of its measures.
    """
    calibration: list[Line] = []
    doubt: list[Line] = []
    for entry in series:
        key = entry.tested_on, entry.name
        for run in entry.runs:
            figures = {title: run.metrics.get(name) for name, title in CALIBRATION_COLUMNS.items()}
            calibration.append((key, run.seed, figures))
            for measure, values in run.metrics.get("uncertainty", {}).items():
                figures = {title: values[name] for name, title in MEASURED_BY.items()}
                doubt.append(((*key, measure.replace("_", " ")), run.seed, figures))
    made = [
        Table.of("Calibration", SERIES_HEADS, calibration),
        Table.of("Uncertainty", (*SERIES_HEADS, "by"), doubt),
    ]
    return [table for table in made if len(table.by_seed)]


def notes_of(run: FinishedRun) -> list[str]:
    """What a reader of the run's figures has to know."""
    notes = list(run.record.get("notes", ()))
    if broken := [name for names in run.record["skipped_images"].values() for name in names]:
        notes.append(
            f"Left out of {run.record['run']['dataset']}, since they can't be read: "
            f"{counted(len(broken), 'image')} ({first_few(broken)})"
        )
    return notes


def write_lists(series: Sequence[RunSeries], start: str) -> list[str]:
    """Writes the lists of the galleries' images as tables, ``<start>_wrong_labels.csv`` and
    ``<start>_label_next.csv``, of the first seed of each series; returns the names of the files.
    """
    if not series:
        return []
    rows: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for entry in series:
        for title, images in listed(entry.first).items():
            rows[title] += [(entry.tested_on, entry.name, *image) for image in images]
    written = []
    for title, ending in ((WRONG_LABELS, "wrong_labels"), (NEXT, "label_next")):
        path = f"{start}_{ending}.csv"
        check_output("the list", path, f"\ufeff{','.join(SERIES_HEADS)},image,")
        write_text(path, csv_text((*SERIES_HEADS, *LIST_COLUMNS), rows[title]))
        written.append(os.path.basename(path))
    return written


@contextmanager
def warnings_noted() -> Iterator[BufferingHandler]:
    """Keeps the warnings to the end of the block, for the report's readers."""
    warnings = BufferingHandler(sys.maxsize)
    warnings.setLevel(logging.WARNING)
    packages = [logging.getLogger(name) for name in ("results", "analysis")]
    for package in packages:
        package.addHandler(warnings)
    try:
        yield warnings
    finally:
        for package in packages:
            package.removeHandler(warnings)


def make_report(
    folders: Sequence[str | Path],
    output: str | Path,
    more: Mapping[str, MoreFigures],
    root: str | None = None,
) -> list[Headline]:
    """Writes the report to ``output``, its figures to the folder ``<output without its
    ending>_figures`` and its lists of images beside it, see ``write_lists``; returns its
    ``headlines``.

    Args:
        folders: of runs, or that have runs below them; more: a section's title → what
            gives its figures, which need the runs' models.
        root: folder of the data sets; None: what needs images is left out.

    Raises:
        UserError: no run in or below one of the folders, a file of a run can't be read, there is no
        folder ``root``, or what would be written is somebody's.
    """
    check_root(root)
    check_output("--output", str(output), MARK)
    with warnings_noted() as warnings:
        runs = collect(*folders)
        accuracies = protocol_tables(folders)
        without = sum(run.answers is None for run in runs)
        if without:
            log.warning(
                "Without predictions-test.npz: %d of %d runs; they are missing wherever single "
                "images count",
                without,
                len(runs),
            )
        series = group(runs)
        answered = with_answers(series)
        names = [entry.name for entry in series]
        names += [" ".join(row[-2:]) for table in accuracies for row in table.means.index]
        # a model has the same one everywhere
        colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(names))}
        first = {entry.first.record["dataset"]: entry.first for entry in answered}
        images = {data: find_images(run, root) if root else {} for data, run in first.items()}
        figures = {
            "Accuracy": curve_figures(accuracies, colours),
            "Can its probabilities be trusted?": answer_figures(answered, colours),
            "Evidence": vacuity_figures(answered),
            **{title: figures_of(answered, images) for title, figures_of in more.items()},
            "Training": training_figures(series, colours),
        }
        made = {title: list(of_title) for title, of_title in figures.items()}
        class_pages = [
            (entry.where, class_page(entry, images[entry.first.record["dataset"]]))
            for entry in sorted(answered, key=lambda entry: entry.is_zero_shot)
        ]
        voting_first = sorted(
            answered, key=lambda entry: (entry.is_zero_shot, not entry.has("vote"))
        )
        galleries = []
        for entry in voting_first:
            run = entry.first
            cards = gallery(run, images[run.record["dataset"]])
            galleries.append((f"{entry.where}, seed {run.seed}", cards))
    heads = headlines(series)
    path = Path(output).absolute()
    start = str(path.with_suffix(""))  # of what goes beside it
    trained = [entry for entry in voting_first if not entry.is_zero_shot]
    lists = write_lists(trained or voting_first, start)
    taken: Counter[str] = Counter()
    sections = {}
    for title, of_title in made.items():
        if of_title:
            bar = tqdm(of_title, title, unit="figure", disable=None)
            sections[title] = [
                (each, write_figure(each, f"{start}_figures", taken)) for each in bar
            ]
    page = jinja2.Template(
        Path(__file__).with_name("report_template.html").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = page.render(
        folders=folders,
        runs=runs,
        notes=dict.fromkeys(
            [record.getMessage() for record in warnings.buffer]
            + [head["warning"] for head in heads if head["warning"]]
            + [note for run in runs for note in notes_of(run)]
        ),
        papers=PAPERS,
        inks=INKS,
        sections=sections,
        headlines=heads,
        class_pages=class_pages,
        galleries=galleries,
        lists=lists,
        listed=LISTED,
        decimal=decimal,
        root=root,
        accuracies=accuracies,
        measured=measured_tables(series),
        render=render,
        common=os.path.commonpath([run.folder.parent for run in runs]),
        counted=counted,
    )
    write_text(str(path), html)
    return heads
