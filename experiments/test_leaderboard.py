"""The leaderboard: its data are those of the tables, and its picture has all of them; the page's table
has the trainers of the product."""

import re
from xml.etree import ElementTree

import pandas
import pytest

from experiments.leaderboard import PART, draw
from tests.runs import REPOSITORY
from trainers import METHODS

DOCS = REPOSITORY / "docs"
OF_PRODUCT = {name for name, module in METHODS.items() if module.startswith(".")}


def test_the_leaderboards_data_and_the_benchmarks_table_are_those_of_base_to_new():
    data = pandas.read_csv(DOCS / "data/base_to_new.csv", dtype=str)
    columns = ["trainer", "seeds", "base_mean", "new_mean", "H_mean", "H_std"]
    measured = sorted(data[columns].values.tolist())
    drawn = pandas.read_csv(DOCS / "data/leaderboard.csv", dtype=str)
    assert sorted(drawn.iloc[:, :6].values.tolist()) == measured
    shown = [[name, *others] for name, _, *others in measured if name in OF_PRODUCT]
    assert {row[1] for row in measured if row[0] in OF_PRODUCT} == {"5"}
    page = (DOCS / "benchmark.md").read_text("utf-8")
    assert "five seeds" in " ".join(page.split())
    lines = re.findall(r"(?m)^\| (\w+(?: †)? \| \d.*±.*) \|$", page)
    rows = [re.split(r" \| | ± ", line) for line in lines]
    assert sorted([name.removesuffix(" †"), *others] for name, *others in rows) == shown
    marked = {row[0].removesuffix(" †") for row in rows if row[0].endswith(" †")}
    assert marked == {*drawn["trainer"][drawn[PART].notna()]} & OF_PRODUCT


@pytest.mark.parametrize("name", ["leaderboard", "factors", "templates"])
def test_a_picture_has_every_row_of_its_data(name):
    table = pandas.read_csv(DOCS / f"data/{name}.csv")
    kept = (DOCS / f"{name}.svg").read_text("utf-8")
    for picture in (draw(table), kept):
        nodes = ElementTree.fromstring(picture).iter()
        texts = {"".join(node.itertext()).strip() for node in nodes}
        assert {*table.iloc[:, 0]} <= texts
        assert "prefers-color-scheme:dark" in picture
