"""A report's parts for the series of each task: the one place that asks whether an image has one label
or several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from results.runs import RunSeries

from . import classes, gallery, multi_label
from .classes import ClassPage
from .gallery import Gallery
from .headlines import ACCURACY, RIGHT, Headline, comparable, headline, mean_of
from .pictures import Paths


@dataclass(frozen=True)
class Shown:
    """The parts that show the series of one task.

    Attributes:
        metric: of the headline; measure: its name in a sentence; column: in a table.
        reading: how to read a table of headlines.
        headline: of a series and of the same CLIP's result untrained, None where it is not known.
        class_page, gallery: of a series that has answers.
        has_figures: whether figures are drawn of its answers, which need one answer per image.
    """

    metric: str
    measure: str
    column: str
    reading: str
    headline: Callable[[RunSeries, float | None], Headline]
    class_page: Callable[[RunSeries, Paths], ClassPage]
    gallery: Callable[[RunSeries, Paths], Gallery]
    has_figures: bool


ONE_LABEL = Shown(
    metric=ACCURACY,
    measure=RIGHT,
    column="accuracy",
    reading="Accuracy in percent, mean over seeds, with the 95 % interval (Wilson's) that comes of the "
    "number of test images; the same CLIP untrained, where it is among these runs; and the accuracy of "
    "always answering the commonest class.",
    headline=headline,
    class_page=classes.class_page,
    gallery=gallery.gallery,
    has_figures=True,
)
SHOWN_OF_MULTI_LABEL = Shown(
    metric=multi_label.MAP,
    measure=multi_label.MEASURE,
    column="mAP",
    reading="mAP, the mean of the labels' average precisions, in percent, mean over seeds; that of the "
    "same CLIP untrained, where it is among these runs, and that of chance, the mean share of pictures "
    "that have a label.",
    headline=multi_label.headline,
    class_page=multi_label.class_page,
    gallery=multi_label.gallery,
    has_figures=False,
)


def shown_of(entry: RunSeries) -> Shown:
    """Return the parts that show a series."""
    return SHOWN_OF_MULTI_LABEL if entry.is_multi_label else ONE_LABEL


@dataclass(frozen=True)
class Glance:
    """The headlines of one task as a table, made by ``Shown``.

    Attributes:
        column: name of the column of values; reading: how to read it.
        heads: a row each.
    """

    column: str
    reading: str
    heads: list[Headline]

    @property
    def facts(self) -> list[str]:
        """Names of the further measures."""
        return [*dict.fromkeys(name for head in self.heads for name in head.facts)]


def headlines(series: Sequence[RunSeries]) -> list[Headline]:
    """A ``Headline`` for each series whose runs were all tested."""
    untrained: dict[tuple[object, ...], float] = {}
    tested = []
    for entry in series:
        metric = shown_of(entry).metric
        if any(run.metrics.get(metric) is None for run in entry.runs):
            continue
        tested.append(entry)
        if entry.is_zero_shot:
            untrained.setdefault(comparable(entry), mean_of(entry, metric))
    return [shown_of(entry).headline(entry, untrained.get(comparable(entry))) for entry in tested]


def glances(heads: Sequence[Headline]) -> list[Glance]:
    """A ``Glance`` for each task that has headlines."""
    made = []
    for shown in (ONE_LABEL, SHOWN_OF_MULTI_LABEL):
        of_task = [head for head in heads if head.measure == shown.measure]
        if of_task:
            made.append(Glance(shown.column, shown.reading, of_task))
    return made
