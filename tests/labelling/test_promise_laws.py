"""What a promise is computed from, against loops and closed forms."""

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labelling.threshold import OFFERED, points_of, possible


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40))
@example([(1, True), (1, True), (0, False), (1, False), (2, True)])
def test_a_point_counts_every_image_and_every_mistake_up_to_its_uncertainty(images):
    """Also where several have the same uncertainty."""
    uncertainty = [step / 4 for step, _ in images]
    wrong = [is_wrong for _, is_wrong in images]
    points = points_of(numpy.array(uncertainty), numpy.array(wrong))
    assert [point.uncertainty for point in points] == sorted({*uncertainty})
    for point in points:
        within = [mistake for value, mistake in zip(uncertainty, wrong) if value <= point.limit]
        assert within == [
            mistake for value, mistake in zip(uncertainty, wrong) if value <= point.uncertainty
        ]
        assert (point.answered, point.wrong) == (len(within), sum(within))


@pytest.mark.parametrize("share", OFFERED)
@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_each_of_the_shares_that_are_looked_at_has_its_part_of_the_risk(share, risk):
    """n right answers show that at most a share s is wrong where (1 − s)ⁿ is at most the risk: a third
    of it, since one of three may be chosen after a look at all."""
    least = next(n for n in range(1, 1000) if (1 - share) ** n <= risk / len(OFFERED))
    for images in (least - 1, least):
        uncertainty = numpy.linspace(0.1, 0.9, images)
        points = points_of(uncertainty, numpy.zeros(images, bool))
        assert (share in possible(points, 1 - risk)) == (images == least)
