"""The page of a report: one HTML file with everything in it, and its figures as SVG beside it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from tqdm import tqdm

from results.render import render
from results.rows import Table
from results.runs import FinishedRun, RunSeries, collect, group, with_answers
from results.svg import INKS, PAPERS
from trainers.common.console import counted
from trainers.common.files import check_output, write_text
from trainers.data.kept import PictureCache
from trainers.evaluation.figures import decimal

from .classes import ClassPage
from .figures import (
    Colours,
    DrawnFigure,
    Figure,
    Section,
    answer_figures,
    curve_figures,
    training_figures,
    vacuity_figures,
    write_figure,
)
from .gallery import MOST_LISTED, Gallery, in_order, write_lists
from .headlines import Headline, single
from .own import PROMISED, OwnTraining, offer_figure
from .pictures import Paths, check_root, find_images
from .sources import RunRow, measures_of, notes_of, run_rows, warn_without_answers, warnings_noted
from .tables import Tables, measured_tables, protocol_tables
from .tasks import Glance, glances, headlines, shown_of

PAGE_MARK = "<!DOCTYPE html>\n<!-- A report of CDC for prompt learning -->\n"  # begins the template
# makes figures of series that have answers; its second argument: data set → its images' files
MoreFigures = Callable[[list[RunSeries], dict[str, Paths]], Iterable[Figure]]


@dataclass(frozen=True)
class AnswerPages:
    """The answers of several series.

    Attributes:
        classes: a page for each series that has answers.
        galleries: of the first seed of each of them.
    """

    classes: list[ClassPage]
    galleries: list[Gallery]


@dataclass(frozen=True)
class Report:
    """Everything on the page, in its order; a part without content is left out.

    Attributes:
        folders: that the runs lie in or below.
        single: the headline that is shown in large figures, None where several count.
        glance: the headlines as tables, where none is ``single``.
        notes: remarks before reading on, each once.
        own: of the only training, if it is on one's own pictures.
        promise: its chart, if anything can be promised.
        answers: of all series or, where one training stands alone, its own.
        untrained: of the same CLIP without that training.
        tables: of accuracies, calibration and uncertainty.
        sections: of figures.
        lists: names of the files beside the page that list the galleries' images.
        has_pictures: whether it was made with the folder of the data sets.
        measures: columns of ``runs``.
        runs: all runs, where the numbers come from.
    """

    folders: Sequence[str | Path]
    single: Headline | None
    own: OwnTraining | None
    promise: list[Section]
    glance: list[Glance]
    notes: list[str]
    answers: AnswerPages
    untrained: AnswerPages
    tables: Tables
    sections: list[Section]
    lists: list[str]
    has_pictures: bool
    measures: list[str]
    runs: list[RunRow]


def make_report(
    folders: Sequence[str | Path],
    output: str | Path,
    more: Mapping[str, MoreFigures],
    root: str | None = None,
    own: OwnTraining | None = None,
    kept: PictureCache | None = None,
) -> list[Headline]:
    """Writes the report, and beside it a folder of its figures and lists of images.

    Args:
        folders: of runs, or that have runs below them.
        output: the page's file, as in ``report.html``; the figures go to ``report_figures``, and the
            lists are such as ``report_least_certain.csv``.
        more: a section's title → the function that draws its figures, which need the runs' models.
        root: folder of the data sets; None: parts that need images are left out.
        own: of the only training, if it is on one's own pictures.
        kept: as in ``Found``.

    Returns:
        the ``headlines`` of all series.

    Raises:
        UserError: no run in or below one of the folders, a file of a run can't be read, the
        folder ``root`` is missing, or a file to be written is somebody's.
    """
    check_root(root)
    check_output("--output", str(output), PAGE_MARK)
    with warnings_noted() as warnings:
        runs = collect(*folders)
        accuracies = protocol_tables(folders)
        warn_without_answers(runs)
        series = group(runs)
        answered = with_answers(series)
        paths = paths_of(answered, root, kept)
        drawn = [entry for entry in answered if shown_of(entry).has_figures]
        figures = all_figures(series, drawn, accuracies, more, paths)
        heads = headlines(series)
        alone = single(heads)
        trained = [entry for entry in answered if not entry.is_zero_shot]
        untrained = [entry for entry in answered if entry.is_zero_shot]
        shown = answers_of(trained or untrained, paths)
        aside = answers_of(untrained if trained else [], paths)
    path = Path(output).absolute()
    start = str(path.with_suffix(""))  # of the files beside it
    written = write_lists(shown.galleries, start)
    if not alone:
        shown = AnswerPages(shown.classes + aside.classes, shown.galleries + aside.galleries)
        aside = AnswerPages([], [])
    offer = own.offer if own else None
    promised = [offer_figure(offer)] if offer and offer.kept else []
    sections = write_figures(figures, f"{start}_figures")
    report = Report(
        folders=folders,
        single=alone,
        own=own,
        promise=write_figures({PROMISED: promised}, f"{start}_figures"),
        glance=[] if alone else glances(heads),
        notes=notes_on([record.getMessage() for record in warnings.buffer], heads, runs),
        answers=shown,
        untrained=aside,
        tables=Tables(accuracies, measured_tables(series)),
        sections=sections,
        lists=written,
        has_pictures=bool(root),
        measures=measures_of(runs),
        runs=run_rows(runs),
    )
    write_text(str(path), html_of(report))
    return heads


def notes_on(
    warnings: Iterable[str], heads: Iterable[Headline], runs: Iterable[FinishedRun]
) -> list[str]:
    """Return the remarks to know before reading on, each once: warnings, and those of headlines and runs."""
    notes = [*warnings, *(head.warning for head in heads if head.warning)]
    for run in runs:
        notes += notes_of(run)
    return [*dict.fromkeys(notes)]


def answers_of(series: Sequence[RunSeries], paths: Mapping[str, Paths]) -> AnswerPages:
    """Return the answers of series, those that were trained first; paths: of ``paths_of``."""
    trained_first = sorted(series, key=lambda entry: entry.is_zero_shot)
    classes = [shown_of(entry).class_page(entry, paths[data_of(entry)]) for entry in trained_first]
    galleries = [
        shown_of(entry).gallery(entry, paths[data_of(entry)]) for entry in in_order(series)
    ]
    return AnswerPages(classes, [made for made in galleries if made.cards])


def data_of(entry: RunSeries) -> str:
    """Name of the data set that a series was tested on; one with several labels is another one."""
    name: str = entry.first.record["dataset"]
    return f"{name}, multi-label" if entry.is_multi_label else name


def paths_of(
    answered: Sequence[RunSeries], root: str | None, kept: PictureCache | None
) -> dict[str, Paths]:
    """Data set → the files of its images below ``root``; without root it has none; kept: as in ``Found``."""
    first = {data_of(entry): entry.first for entry in answered}
    return {data: find_images(run, root, kept) if root else {} for data, run in first.items()}


def all_figures(
    series: list[RunSeries],
    answered: list[RunSeries],
    accuracies: list[Table],
    more: Mapping[str, MoreFigures],
    paths: dict[str, Paths],
) -> dict[str, list[Figure]]:
    """Title of a section → its figures.

    Args:
        answered: the series of whose answers figures are drawn; accuracies: of ``protocol_tables``; more: as in
            ``make_report``; paths: of ``paths_of``.
    """
    colours = colours_of(series, accuracies)
    figures = {
        "Accuracy": curve_figures(accuracies, colours),
        "Can its probabilities be trusted?": answer_figures(answered, colours),
        "Evidence": vacuity_figures(answered),
        **{title: figures_of(answered, paths) for title, figures_of in more.items()},
        "Training": training_figures(series, colours),
    }
    return {title: list(of_title) for title, of_title in figures.items()}


def colours_of(series: Iterable[RunSeries], accuracies: Iterable[Table]) -> Colours:
    """A colour for each model, the same in all figures."""
    names = [entry.name for entry in series]
    names += [" ".join(row[-2:]) for table in accuracies for row in table.means.index]
    return {name: f"C{number}" for number, name in enumerate(dict.fromkeys(names))}


def write_figures(figures: Mapping[str, list[Figure]], folder: str) -> list[Section]:
    """Draws and writes the figures of all sections into one folder; a section without any is left
    out."""
    taken: Counter[str] = Counter()
    sections = []
    for title, of_title in figures.items():
        if of_title:
            bar = tqdm(of_title, title, unit="figure", disable=None)
            drawn = [
                DrawnFigure(each.reading, each.alt, write_figure(each, folder, taken))
                for each in bar
            ]
            sections.append(Section(title, drawn))
    return sections


def html_of(report: Report) -> str:
    """The page of a report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"papers": PAPERS, "inks": INKS, "listed": MOST_LISTED}
    environment.filters |= {"counted": counted, "decimal": decimal, "table": render}
    return environment.get_template("report_template.html").render(report=report)
