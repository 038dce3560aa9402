"""The promises that can be kept about a run's labels, for the chart of its report: with one label per picture, and
multi-label."""

import numpy

from report.own import Given, Offer
from trainers.common.record_file import finished_record, stands_for_others

from ..limits import LIMITS, worth_of
from ..rules import held_sets, offered, offered_labels, promises_of
from ..threshold import Point, possible, validation_if_any


def offer_of(folder: str) -> Offer:
    """Return the offer of a run with one label per picture."""
    validation = validation_if_any(folder)
    points = validation.points
    every = points[-1].answered if points else 0

    def given(point: Point) -> Given:
        return Given(point.answered / every, point.wrong / point.answered)

    curve = [given(point) for point in points]
    found = {} if validation.held is None else possible(validation.held)
    return Offer(
        sentence="" if found else offered(validation),
        coverage=numpy.array([point.coverage for point in curve]),
        risk=numpy.array([point.risk for point in curve]),
        kept={share: given(point) for share, point in found.items()},
        covered="of the pictures",
    )


def multi_label_offer(folder: str) -> Offer:
    """Return the offer of a multi-label run."""
    record = finished_record(folder)
    held = held_sets(folder, record)
    curve = [worth_of(held.probability >= limit, held.truth) for limit in LIMITS[::-1]]
    curve = [worth for worth in curve if worth.given]
    promises = promises_of(held) if stands_for_others(record) else {}
    kept = {}
    for share, limits in promises.get("--max-error", {}).items():
        worth = worth_of(limits.given(held.probability), held.truth)
        kept[share] = Given(worth.found, worth.wrong)
    return Offer(
        sentence=offered_labels(record, promises),
        coverage=numpy.array([worth.found for worth in curve]),
        risk=numpy.array([worth.wrong for worth in curve]),
        kept=kept,
        covered="of the pictures' labels",
    )
