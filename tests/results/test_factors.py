"""The factors' table: groups and flips in closed form, and a whole run from training to table."""

import json

import numpy as np
import pytest

import run as protocol_run
from analysis import factors
from datasets.drawn.factors import LEVELS, OpenMojiFactors, code_of, levels_of
from protocols import launch
from protocols import training as train
from protocols.command_line import parse_arguments
from results.runs import collect
from results.table import tables
from tests.results.conftest import values, write

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
    level, own = np.array([0] * 20 + [1] * 6 + [2] * 7), np.ones(33, bool)
    right = np.array([True] * 20 + [False] * 6 + [True] * 7)
    joined = factors.worst_group_accuracy(right, level, own)
    alone = factors.worst_group_accuracy(right[:23], level[:23], own[:23])
    assert (joined, alone) == pytest.approx((100 * 7 / 13, 100 * 20 / 23)), "one group is left"


def answers(version, factor, answer):
    """A run's answers to the test emojis; answer: (label, level of the factor) → class."""
    labels = np.array([label for _, label in EMOJIS])
    top = [
        answer(label, levels_of(code, label, "test", version, factor)[factor])
        for code, label in EMOJIS
    ]
    return {
        "image": np.array([f"{version}/{code}.png" for code, _ in EMOJIS]),
        "label": labels,
        "top": np.array(top)[:, None],
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


OPTIONS = {
    "OPTIM.MAX_EPOCH": "1",
    "OPTIM.WARMUP_EPOCH": "-1",
    "TRAIN.CHECKPOINT_FREQ": "0",
    "DATALOADER.TEST.BATCH_SIZE": "500",
}


def test_from_training_to_table(tmp_path, monkeypatch, capsys):
    """In this process, on one training emoji a class and every eighth of the others: drawing and starting take time."""
    original = OpenMojiFactors.list_images.__func__

    def list_images(cls, *arguments):
        train_images, val, test = original(cls, *arguments)
        return list({image.label: image for image in train_images}.values()), val[::8], test[::8]

    def start(job, args):
        train.run(parse_arguments(job.arguments(args.root, args.opts)))

    monkeypatch.setattr(OpenMojiFactors, "list_images", classmethod(list_images))
    monkeypatch.setattr(launch, "start", start)
    output = tmp_path / "factors"
    arguments = (
        "--protocol factors --trainer ZeroshotCLIP CoOp --dataset factors_cast --shots 1 --seeds 1"
    )
    folders = ["--root", str(tmp_path / "data"), "--output", str(output)]
    options = [word for pair in OPTIONS.items() for word in pair]
    assert protocol_run.main([*arguments.split(), *folders, "--", *options]) == 0
    records = {
        path.parts[-7]: json.loads(path.read_text())
        for path in output.rglob("CoOp/*/*/results.json")
    }
    assert {
        part: record["config"]["DATASET"]["FACTORS"]["TEST"] for part, record in records.items()
    } == {
        "train_biased": "aligned",
        "test_independent": "independent",
        "test_reversed": "reversed",
    }
    assert len({record["split_hash"] for record in records.values()}) == 3
    assert len({record["prompts_hash"] for record in records.values()}) == 1
    (of_protocol,) = tables(collect(output))
    table = factors.factor_table(output)
    assert table.means[of_protocol.names].equals(of_protocol.means)
    for row in values(table).values():
        assert row["drop"] == [row["aligned"][0] - row["reversed"][0]]
        assert 0 <= row["worst group"][0] <= 100 and 0 <= row["flipped"][0] <= 100
    capsys.readouterr()
    assert factors.main([str(output), "--format", "markdown"]) == 0
    assert "| factors_cast" in capsys.readouterr().out


def test_trouble_is_one_line(tmp_path, capsys, caplog):
    write(tmp_path / "other", "train_all", "CoOp", 1, 50.0)
    assert factors.main([str(tmp_path / "other")]) == 2
    assert "no run of the protocol factors below" in capsys.readouterr().err
    config = {
        "MODEL": {"BACKBONE": {"NAME": "tiny"}},
        "DATASET": {"FACTORS": {"CORRELATED": "cast"}},
    }
    facts = {"classes": "base", "data": "factors_cast", "config": config}
    for part in ("train_biased", "test_independent", "test_reversed"):
        write(tmp_path / "runs", part, "CoOp", 1, 50.0, **facts)
    write(tmp_path / "runs", "train_biased", "CoOp", 2, 50.0, **facts)
    assert factors.main([str(tmp_path / "runs")]) == 2
    assert "predictions-test.npz is missing: delete" in capsys.readouterr().err
    assert "left out: factors_cast 16 CoOp tiny seed(s) 2, of which only" in caplog.text


def test_the_protocol_needs_known_factors(capsys):
    arguments = ["--protocol", "factors", "--trainer", "CoOp", "--dataset", "openmoji"]
    assert protocol_run.main(arguments) == 2
    assert "--dataset factors_background factors_border" in capsys.readouterr().err
