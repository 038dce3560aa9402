"""The chart of what can be promised: its points are those of the promises, for each task."""

import numpy
import pytest

from labelling.checkout.offers import multi_label_offer, offer_of
from labelling.rules import Wanted, rule_of
from labelling.threshold import OFFERED

from .test_wishes import MULTI, over_tasks, write_made_up


@over_tasks
def test_each_line_of_the_chart_is_what_its_share_is_given_and_a_point_of_the_curve(task, tmp_path):
    write_made_up(task, tmp_path, 600, 0.1)
    offer = (multi_label_offer if task is MULTI else offer_of)(str(tmp_path))
    assert offer.kept
    assert set(offer.kept) <= set(OFFERED)
    assert (numpy.diff(offer.coverage) >= 0).all()
    for share, given in offer.kept.items():
        rule = rule_of(str(tmp_path), Wanted(max_error=share))
        assert given.risk <= share
        if task is not MULTI:
            assert given.coverage == pytest.approx(rule.point.answered / 600)
            place = numpy.flatnonzero(offer.coverage == given.coverage)
            assert offer.risk[place].tolist() == [given.risk]
