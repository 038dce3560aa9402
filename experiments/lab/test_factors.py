"""The factors' table: groups and flips in closed form, and a whole run from training to table."""

from types import SimpleNamespace

import numpy as np
import pytest

import run as protocol_run
from datasets.drawn.factors import LEVELS, OpenMojiFactors, code_of, levels_of
from experiments.lab import factors
from results.runs import collect
from results.table import tables
from tests.results.conftest import values
from tests.runs import call, make_small_options, refuses

EMOJIS = [
    (code_of(image), image.label)
    for image in OpenMojiFactors.list_images("")[2]
    if image.label < 23
]


def test_the_worst_group_is_a_level_shown_to_its_own_classes_or_to_others():
    level, own = np.repeat([0, 1, 0, 1], 10), np.repeat([True, True, False, False], 10)
    right = np.concatenate([np.arange(10) < hits for hits in (9, 8, 3, 7)])
    assert factors.worst_group_accuracy(right, level, own) == 30
    assert factors.worst_group_accuracy(right, level, np.ones(40, bool)) == 60


def test_groups_of_few_images_are_joined():
    level = np.repeat([0, 1, 2], [20, 6, 7])
    found = factors.worst_group_accuracy(level != 1, level, np.ones(33, bool))
    assert found == pytest.approx(100 * 7 / 13)


def answers(version, answer):
    """A run's answers to the test emojis; answer: (label, level of the cast) → class."""
    answered = [
        answer(label, levels_of(code, label, "test", version, "cast")["cast"])
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


def by_emoji(label, level):
    return label


@pytest.mark.parametrize("answer, worst, flipped", [(by_emoji, 100, 0), (by_factor, 0, 100)])
def test_who_goes_by_the_factor_has_a_worst_group_of_nothing_and_flips(answer, worst, flipped):
    pair = [answers(version, answer) for version in ("aligned", "reversed")]
    assert factors.of_answers(*pair, "cast") == {"worst group": worst, "flipped": flipped}
    pair[1]["image"] = pair[1]["image"][::-1]
    with refuses("have other emojis, or in another order"):
        factors.of_answers(*pair, "cast")


def test_each_templates_drop_is_that_of_its_own_answers():
    aligned = SimpleNamespace(metrics={"template_accuracy": [90.0, 50.0]})
    reversed_ = SimpleNamespace(metrics={"template_accuracy": [20.0, 60.0]})
    drops = factors.vote_drops(aligned, reversed_)
    assert drops == {"template 1": 70, "template 2": -10}


def test_from_training_to_table(drawn_root, small_clip_file, in_this_process, tmp_path, capsys):
    words = (
        "--protocol factors --trainer CoOp --dataset factors_cast --config tiny --shots 1 "
        f"--seeds 1 --root {drawn_root} --output {tmp_path} --"
    )
    options = make_small_options(small_clip_file, epochs=1)
    assert call(protocol_run.main, *words.split(), *options) == 0
    found = {run.record["run"]["part"]: run.record for run in collect(tmp_path)}
    versions = {part: of["config"]["DATASET"]["FACTORS"]["TEST"] for part, of in found.items()}
    assert versions == {
        "train_biased": "aligned",
        "test_independent": "independent",
        "test_reversed": "reversed",
    }
    assert len({record["prompts_hash"] for record in found.values()}) == 1
    (of_protocol,) = tables(collect(tmp_path))
    (table,) = factors.factor_tables(tmp_path)
    assert table.means[of_protocol.names].equals(of_protocol.means)
    (row,) = values(table).values()
    assert row["drop"] == [row["aligned"][0] - row["reversed"][0]]
    capsys.readouterr()
    assert call(factors.main, tmp_path, "--format", "markdown") == 0
    assert "| factors_cast" in capsys.readouterr().out
