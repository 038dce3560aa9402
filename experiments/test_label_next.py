"""The tutorial's table and curves of --label-next are those of the kept results."""

from xml.etree import ElementTree

import pandas
import pytest

from experiments import label_next
from experiments.test_conclusions import table_of
from tests.runs import REPOSITORY

PAGE = "docs/tutorials/rounds.md"
HEAD = "| folder | 60 | 120 | 240 | 480 |"


@pytest.fixture(scope="module")
def lines():
    return pandas.read_json(REPOSITORY / "experiments/label_next.jsonl", lines=True)


def test_the_pages_rows_are_differences_of_the_same_seeds(lines):
    rows = table_of(PAGE, HEAD)
    assert [*rows] == [kind for kind in label_next.KINDS if kind not in label_next.CHOSEN_ON]
    for kind, cells in rows.items():
        offered = "k-means" if kind.startswith("scenes") else "k-means, then uncertain"
        own = lines[lines["kind"] == kind].set_index(["choice", "labelled", "seed"])["right"]
        for labelled, cell in zip((60, 120, 240, 480), cells):
            if labelled not in own["chance"].index:
                assert cell == ""
                continue
            points = [
                own[offered, labelled, seed] - own["chance", labelled, seed] for seed in range(3)
            ]
            mean, deviation = cell.split(" ± ")
            assert float(mean) == pytest.approx(sum(points) / 3, abs=0.051)
            assert float(deviation) == pytest.approx(pandas.Series(points).std(), abs=0.051)


def test_with_several_labels_it_beats_uncertainty_and_loses_to_chance_in_one_folder(lines):
    known = label_next.reported(lines)
    scenes = known[known["kind"].str.startswith("scenes")]
    mean = scenes.groupby(["kind", "labelled", "shown"])["right"].mean().unstack()
    later = mean[mean.index.get_level_values("labelled") > label_next.BUDGETS[0]]
    assert (later[label_next.OFFERED] > later["most uncertain"]).all()
    loses = (later[label_next.OFFERED] < later["chance"]).groupby("kind").any()
    assert (len(loses), loses.sum()) == (3, 1)


def test_the_page_says_what_the_most_uncertain_give_on_both_sides_of_the_change(lines):
    single = lines[~lines["kind"].str.startswith("scenes")]
    own = single.set_index(["kind", "labelled", "seed", "choice"])
    text = " ".join((REPOSITORY / PAGE).read_text("utf-8").split())
    for is_above, words in (
        (False, "{} points beside different ones up to it"),
        (True, "{} above"),
    ):
        means = []
        for seed in range(3):
            points = []
            for (kind, labelled, its_seed, choice), row in own.iterrows():
                is_asked = its_seed == seed and choice == "uncertain" and labelled > 30
                if is_asked and (row["per class"] > 20) == is_above:
                    points.append(row["right"] - own["right"][kind, labelled, seed, "k-means"])
            means.append(sum(points) / len(points))
        mean = f"{pandas.Series(means).mean():+.1f}".replace("-", "−")
        assert words.format(f"{mean} ± {pandas.Series(means).std():.1f}") in text


def test_the_picture_has_a_curve_of_each_choice_in_each_folder(lines):
    kept = (REPOSITORY / "docs/label_next.svg").read_text("utf-8")
    curves = []
    for picture in (label_next.draw(lines), kept):
        nodes = [*ElementTree.fromstring(picture).iter()]
        texts = {"".join(node.itertext()).strip() for node in nodes}
        assert {*table_of(PAGE, HEAD), *label_next.SHOWN} <= texts
        groups = [node.get("id") or "" for node in nodes]
        curves.append(sum(name.startswith("LineCollection") for name in groups))
    folders = 8
    assert curves == [3 * (folders + 1)] * 2  # and the legend's
