"""The factors' table: groups and flips in closed form, and a whole run from training to table."""

from types import SimpleNamespace

import numpy as np
import pytest

import run as protocol_run
from datasets.drawn.factors import LEVELS, OpenMojiFactors, code_of, levels_of
from results import factors
from results.runs import collect
from results.table import tables
from tests.results.conftest import values
from tests.runs import call, make_small_options

EMOJIS = [
    (code_of(image), image.label)
    for image in OpenMojiFactors.list_images("")[2]
    if image.label < 23
]


def test_the_worst_group_is_a_level_shown_to_its_own_classes_or_to_others():
    level, own = np.repeat([0, 1, 0, 1], 10), np.repeat([True, True, False, False], 10)
    right = np.concatenate([np.arange(10) < hits for hits in (9, 8, 3, 7)])
    assert factors.worst_group_accuracy(right, level, own) == 30
    assert factors.worst_group_accuracy(right, 1 - level, own) == 30
    of_levels = factors.worst_group_accuracy(right, level, np.ones(40, bool))
    assert of_levels == 60, "the levels alone"


def test_groups_of_few_images_are_joined():
    level, own = np.repeat([0, 1, 2], [20, 6, 7]), np.ones(33, bool)
    joined = factors.worst_group_accuracy(level != 1, level, own)
    few = [part[:23] for part in (level != 1, level, own)]
    alone = factors.worst_group_accuracy(*few)
    assert (joined, alone) == pytest.approx((100 * 7 / 13, 100 * 20 / 23)), "one group is left"


def answers(version, factor, answer):
    """A run's answers to the test emojis; answer: (label, level of the factor) → class."""
    answered = [
        answer(label, levels_of(code, label, "test", version, factor)[factor])
        for code, label in EMOJIS
    ]
    labels = np.array([label for _, label in EMOJIS])
    return {
        "image": np.array([f"{version}/{code}.png" for code, _ in EMOJIS]),
        "label": labels,
        "answer": np.array(answered),
        "right": answered == labels,
    }


def by_factor(label, level):
    return label if level == label % LEVELS else (label + 1) % 23


@pytest.mark.parametrize(
    "answer, worst, flipped", [(lambda label, level: label, 100, 0), (by_factor, 0, 100)]
)
def test_who_goes_by_the_factor_has_a_worst_group_of_nothing_and_flips(answer, worst, flipped):
    pair = [answers(version, "cast", answer) for version in ("aligned", "reversed")]
    assert factors.measured(*pair, "cast") == {"worst group": worst, "flipped": flipped}
    pair[1]["image"] = pair[1]["image"][::-1]
    with pytest.raises(factors.UserError, match="have other emojis, or in another order"):
        factors.measured(*pair, "cast")


def test_each_templates_drop_is_that_of_its_own_answers():
    """One template answers by the factor, one by the emoji, and one never right."""
    of_template = (by_factor, lambda label, level: label, lambda label, level: -1)
    aligned, reversed_ = (
        SimpleNamespace(
            metrics={
                "template_accuracy": [
                    100 * answers(version, "cast", each)["right"].mean() for each in of_template
                ]
            }
        )
        for version in ("aligned", "reversed")
    )
    drops = factors.vote_drops(aligned, reversed_)
    assert drops == {"template 1": 100, "template 2": 0, "template 3": 0}


def test_from_training_to_table(drawn_root, small_clip_file, in_this_process, tmp_path, capsys):
    words = (
        "--protocol factors --trainer CoOp --dataset factors_cast --config tiny --shots 1 "
        f"--seeds 1 --root {drawn_root} --output {tmp_path} --"
    )
    options = make_small_options(small_clip_file, epochs=2)
    assert call(protocol_run.main, *words.split(), *options) == 0
    found = {run.record["run"]["part"]: run.record for run in collect(tmp_path)}
    versions = {part: of["config"]["DATASET"]["FACTORS"]["TEST"] for part, of in found.items()}
    assert versions == {
        "train_biased": "aligned",
        "test_independent": "independent",
        "test_reversed": "reversed",
    }
    for name, count in (("split_hash", 3), ("prompts_hash", 1)):
        assert len({record[name] for record in found.values()}) == count
    (of_protocol,) = tables(collect(tmp_path))
    (table,) = factors.factor_tables(tmp_path)
    assert table.means[of_protocol.names].equals(of_protocol.means)
    (row,) = values(table).values()
    assert row["drop"] == [row["aligned"][0] - row["reversed"][0]]
    assert all(0 <= row[name][0] <= 100 for name in ("worst group", "flipped"))
    capsys.readouterr()
    assert call(factors.main, tmp_path, "--format", "markdown") == 0
    assert "| factors_cast" in capsys.readouterr().out
