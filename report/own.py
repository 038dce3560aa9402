"""The part of a report on a training on one's own pictures: what can be promised of its labels, as a chart."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy
from matplotlib.axes import Axes

from results.svg import INK

from .figures import Figure, finish

PROMISED = "What can be promised"
FIRST = 0.05  # coverage from which on the curve is drawn: the risk of the first few labels jumps


@dataclass(frozen=True)
class Given:
    """The labels that a run gives under a promise, counted on pictures that it was not trained on.

    Attributes:
        coverage: share of the pictures that get a label or, if multi-label, of the pictures' labels that are given.
        risk: share of the given labels that are wrong.
    """

    coverage: float
    risk: float


@dataclass(frozen=True)
class Offer:
    """The promises that can be kept about a run's labels.

    Attributes:
        sentence: why nothing can be promised, or what the chart does not show; "" for nothing.
        coverage, risk: (P,), in [0, 1], of ``Given`` labels, from the most certain ones on.
        kept: share of errors that can be promised → the labels that are given under it.
        covered: the unit of coverage, as in "of the pictures".
    """

    sentence: str
    coverage: numpy.ndarray
    risk: numpy.ndarray
    kept: Mapping[float, Given]
    covered: str


@dataclass(frozen=True)
class OwnTraining:
    """The facts about a training on one's own pictures that its records lack.

    Attributes:
        offer: None where nothing was tested.
        why_alone: why the untrained CLIP was not tested beside it; "" where it was.
    """

    offer: Offer | None
    why_alone: str = ""


def offer_figure(offer: Offer) -> Figure:
    """The curve of wrong labels over given labels, with a line for each share that can be promised."""
    kept = "; ".join(
        f"at most {100 * share:g} % wrong: {100 * given.coverage:.0f} % {offer.covered}"
        for share, given in offer.kept.items()
    )
    return Figure(
        "promise",
        "Wrong labels among those that are given",
        "From left to right less certain labels are given, too, and more of them are wrong (the curve). A dashed line is a "
        "promise, with 95 % confidence: it ends where that many labels are given by cdc-predict --max-error with its share. "
        "The curve stays below it, since few pictures can't show more. In simulations on pictures without copies at most 5 % of "
        "such promises were broken; more are where pictures belong together and none of them is found: name their groups.",
        f"Share of wrong labels over {offer.covered}. {kept}.",
        partial(draw_offer, offer=offer),
    )


def draw_offer(axes: Axes, offer: Offer) -> None:
    is_shown = offer.coverage >= FIRST
    axes.plot(
        100 * offer.coverage[is_shown],
        100 * offer.risk[is_shown],
        color=INK,
        label="wrong among the given labels",
    )
    for place, (share, given) in enumerate(offer.kept.items()):
        label = f"--max-error {share:g}: {100 * given.coverage:.0f} % {offer.covered}"
        axes.plot(
            [0, 100 * given.coverage], [100 * share] * 2, "--", color=f"C{place}", label=label
        )
        axes.plot(100 * given.coverage, 100 * share, "o", color=f"C{place}")
    axes.set(xlabel=f"given, % {offer.covered}", ylabel="wrong labels in %", xlim=(0, 102))
    highest = max([*offer.kept, offer.risk[is_shown].max(initial=0)])
    axes.set_ylim(0, 115 * highest)
    finish(axes)
