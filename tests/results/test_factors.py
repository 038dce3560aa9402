"""The factors' table: groups and flips in closed form, and a whole run from training to table."""

import json
from itertools import product

import numpy as np
import pytest

import run as protocol_run
from analysis import factors
from datasets.drawn.factors import LEVELS, OpenMojiFactors, code_of, levels_of
from results.runs import collect
from results.table import tables
from tests.results.conftest import values, write
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


def test_from_training_to_table(drawn_root, small_clip_file, in_this_process, tmp_path, capsys):
    output = tmp_path / "factors"
    words = (
        "--protocol factors --trainer CoOp --dataset factors_cast --config tiny --shots 1 "
        f"--seeds 1 --root {drawn_root} --output {output} --"
    )
    options = make_small_options(small_clip_file, epochs=2)
    assert call(protocol_run.main, *words.split(), *options) == 0
    found = output.rglob("results.json")
    records = {path.parts[-7]: json.loads(path.read_text()) for path in found}
    versions = {"biased": "aligned", "independent": "independent", "reversed": "reversed"}
    for part, record in records.items():
        version = versions.pop(part.split("_")[1])
        assert record["config"]["DATASET"]["FACTORS"]["TEST"] == version
    assert not versions and len({record["split_hash"] for record in records.values()}) == 3
    assert len({record["prompts_hash"] for record in records.values()}) == 1
    (of_protocol,) = tables(collect(output))
    table = factors.factor_table(output)
    assert table.means[of_protocol.names].equals(of_protocol.means)
    (row,) = values(table).values()
    assert row["drop"] == [row["aligned"][0] - row["reversed"][0]]
    assert 0 <= row["worst group"][0] <= 100 and 0 <= row["flipped"][0] <= 100
    capsys.readouterr()
    assert call(factors.main, output, "--format", "markdown") == 0
    assert "| factors_cast" in capsys.readouterr().out


def test_trouble_is_one_line(tmp_path, error_of, caplog):
    config = {"DATASET": {"FACTORS": {"CORRELATED": "cast"}}}
    config["MODEL"] = {"BACKBONE": {"NAME": "tiny"}}
    facts = {"classes": "base", "data": "factors_cast", "config": config}
    for part, seed in product(("train_biased", "test_independent", "test_reversed"), (1, 2)):
        if (part, seed) != ("test_reversed", 2):
            write(tmp_path, part, "CoOp", seed, 50.0, **facts)
    assert "predictions-test.npz is missing: delete" in error_of(factors.main, tmp_path)
    assert "left out: factors_cast 16 CoOp tiny seed(s) 2, of which only" in caplog.text
