"""The page of boxes says what the measured margins say."""

import itertools

import numpy
import pandas

from experiments import box_margin
from experiments.test_conclusions import REPOSITORY, text_of
from trainers.common.boxes import Box

LINES = pandas.read_json(REPOSITORY / "experiments/box_margin.jsonl", lines=True)


def test_the_log_has_the_table_of_the_command():
    log = (REPOSITORY / "docs/log.md").read_text("utf-8")
    for line in box_margin.table(LINES).splitlines()[2:]:
        assert "| " + " | ".join(cell.strip() for cell in line.strip("|").split("|")) + " |" in log


def test_the_chosen_margin_loses_on_the_other_sources():
    margin = box_margin.chosen(LINES)
    others = LINES[~LINES["source"].isin(box_margin.CHOSEN_ON)]
    mean = others.groupby("margin")[["person", "detector"]].mean().mean(axis=1)
    said = text_of("docs/boxes.md")
    assert f"the margin would be {margin:g}" in said
    assert f"it loses {mean[0] - mean[margin]:.0f} points" in said
    detector = LINES.groupby(["margin", "source"])["detector"].mean().unstack()
    assert (detector.loc[0.05] > detector.loc[0]).all()


def test_things_lie_in_their_boxes_and_a_margin_in_the_photograph():
    draws = numpy.random.default_rng(0)
    names, things = box_margin.shapes(draws)
    found = box_margin.photographed("shapes", 2, itertools.islice(things, 40), draws)
    assert len(found) == 8 and len({id(thing.photograph) for thing in found}) == 2
    assert {thing.label for thing in found} <= {*range(len(names))}
    assert box_margin.with_margin(Box(10, 20, 30, 40), 0) == Box(10, 20, 30, 40)
    assert box_margin.with_margin(Box(10, 20, 30, 40), 0.5) == Box(0, 0, 55, 80)
