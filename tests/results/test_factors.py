"""The factors' tables: groups, information flow and probes against closed forms, interventions, and a whole run from training to table."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import run as protocol_run
from analysis import factor_measures, factors
from datasets.drawn.factors import FACTORS, LEVELS, OpenMojiFactors, code_of, compose, levels_of
from protocols import launch
from protocols import training as train
from protocols.command_line import parse_arguments
from results.table import collect
from tests.results.test_table import write

EMOJIS = [
    (code_of(image), image.label)
    for image in OpenMojiFactors.list_images("")[2]
    if image.label < 23
]


# ---- measures ----


def test_the_worst_group_is_a_level_shown_to_its_own_classes_or_to_others():
    level, own = np.repeat([0, 1, 0, 1], 10), np.repeat([True, True, False, False], 10)
    right = np.concatenate([np.arange(10) < hits for hits in (9, 8, 3, 7)])
    assert factor_measures.worst_group_accuracy(right, level, own) == 30
    assert factor_measures.worst_group_accuracy(right, 1 - level, own) == 30
    assert factor_measures.worst_group_accuracy(right, level, np.ones(40, bool)) == 60, (
        "the levels alone"
    )


def test_groups_of_few_images_are_joined():
    level, own = np.array([0] * 20 + [1] * 6 + [2] * 7), np.ones(33, bool)
    right = np.array([True] * 20 + [False] * 6 + [True] * 7)
    assert factor_measures.worst_group_accuracy(right, level, own) == pytest.approx(100 * 7 / 13)
    assert factor_measures.worst_group_accuracy(right[:23], level[:23], own[:23]) == pytest.approx(
        100 * 20 / 23
    ), "one group is left"


def entropy(row):
    shares = [row.count(value) / len(row) for value in set(row)]
    return -sum(share * math.log(share) for share in shares)


def rows_of(levels):
    return st.lists(
        st.lists(st.integers(0, 4), min_size=levels, max_size=levels), min_size=1, max_size=8
    )


@given(st.integers(2, 6).flatmap(rows_of))
def test_information_flow_is_the_mean_entropy_of_an_emojis_answers(rows):
    found = factor_measures.information_flow(np.array(rows))
    assert found == pytest.approx(sum(map(entropy, rows)) / len(rows), abs=1e-12)
    assert -1e-12 <= found <= math.log(len(rows[0])) + 1e-12


def test_information_flow_is_nothing_where_no_level_matters_and_all_where_each_does():
    assert factor_measures.information_flow(np.repeat([[3], [1]], 5, axis=1)) == 0
    assert factor_measures.information_flow(np.arange(10).reshape(2, 5)) == pytest.approx(
        math.log(5)
    )
    assert factor_measures.information_flow(np.array([[0, 0, 0, 0, 1]])) == pytest.approx(
        -0.8 * math.log(0.8) - 0.2 * math.log(0.2)
    )


def test_a_probe_reads_what_is_there_and_nothing_else():
    generator = np.random.default_rng(0)
    targets = np.arange(200) % 4
    told = np.eye(4)[targets] + generator.normal(0, 0.1, (200, 4))
    assert factor_measures.probe_accuracy(told, targets) == 100
    assert factor_measures.probe_accuracy(generator.normal(size=(200, 4)), targets) < 40
    assert factor_measures.chance(["a", "b", "b", "c"]) == 50


def said(version, factor, answer):
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
        "top_probability": np.ones((len(labels), 1)),
        "max_probability": np.zeros(len(labels)),
    }


def test_who_goes_by_the_factor_has_a_worst_group_of_nothing_and_who_goes_by_the_object_does_not():
    by_object, by_factor = (
        (lambda label, level: label),
        (lambda label, level: label if level == label % LEVELS else (label + 1) % 23),
    )
    for answer, expected in (
        (by_object, {"worst group": 100, "flipped": 0}),
        (by_factor, {"worst group": 0, "flipped": 100}),
    ):
        found = factor_measures.measured_on_answers(
            *(said(version, "cast", answer) for version in ("aligned", "reversed")), "cast"
        )
        assert found == expected


# ---- the prompts' measures ----


@pytest.fixture
def few(monkeypatch):
    """Five emojis of each of three classes to measure on, and probes that are not fitted."""
    chosen = [
        (code, label, levels_of(code, label, "test"))
        for wanted in (0, 1, 2)
        for code, label in [emoji for emoji in EMOJIS if emoji[1] == wanted][:5]
    ]
    factor_measures.interventions.cache_clear()
    monkeypatch.setattr(factor_measures, "test_emojis", lambda classes: chosen)
    monkeypatch.setattr(
        factor_measures, "probe_accuracy", lambda features, targets: float(len(features))
    )
    yield chosen
    factor_measures.interventions.cache_clear()


def test_interventions_change_one_factor_and_draw_no_picture_twice(few):
    pictures, indices = factor_measures.interventions(3)
    assert indices.shape == (len(FACTORS), 8, LEVELS) and len(pictures) == 8 * (
        len(FACTORS) * (LEVELS - 1) + 1
    )
    for (factor, number, level), index in np.ndenumerate(indices):
        code, _, levels = few[2 * number]
        if (number, level) in ((0, 0), (3, 2), (7, 4)):
            expected = compose(code, {**levels, FACTORS[factor]: level})
            assert pictures[index].tobytes() == expected.tobytes()


SMALL = [
    "OPTIM.MAX_EPOCH",
    "1",
    "OPTIM.WARMUP_EPOCH",
    "-1",
    "TRAIN.CHECKPOINT_FREQ",
    "0",
    "DATALOADER.TEST.BATCH_SIZE",
    "500",
]


@pytest.fixture
def some(monkeypatch):
    """Only one training emoji a class and every eighth of the others, so that drawing takes little time."""
    original = OpenMojiFactors.list_images.__func__

    def list_images(cls, *arguments):
        train_images, val, test = original(cls, *arguments)
        return list({image.label: image for image in train_images}.values()), val[::8], test[::8]

    monkeypatch.setattr(OpenMojiFactors, "list_images", classmethod(list_images))


def test_from_training_to_table(some, few, tmp_path, monkeypatch, capsys):
    """In this process: starting Python anew takes longer than these runs."""
    monkeypatch.setattr(
        launch,
        "start",
        lambda job, args: train.run(parse_arguments(job.arguments(args.root, args.opts))),
    )
    output = tmp_path / "factors"
    code = protocol_run.main(
        [
            "--protocol",
            "factors",
            "--trainer",
            "ZeroshotCLIP",
            "CoOp",
            "CDC",
            "--dataset",
            "factors_cast",
            "--shots",
            "1",
            "--seeds",
            "1",
            "--root",
            str(tmp_path / "data"),
            "--output",
            str(output),
            "--",
            *SMALL,
        ]
    )
    assert code == 0, capsys.readouterr().err
    assert {part.name for part in output.iterdir()} == {
        "train_biased",
        "test_independent",
        "test_reversed",
    }
    records = {
        path.parts[-7]: json.loads(path.read_text())
        for path in output.rglob("CDC/*/*/results.json")
    }
    tested = {
        part: record["config"]["DATASET"]["FACTORS"]["TEST"] for part, record in records.items()
    }
    assert tested == {
        "train_biased": "aligned",
        "test_independent": "independent",
        "test_reversed": "reversed",
    }
    assert [
        len({record[name] for record in records.values()})
        for name in ("split_hash", "prompts_hash")
    ] == [3, 1]
    (protocol_table,) = collect(output)
    capsys.readouterr()
    assert factors.main([str(output)]) == 0
    printed = capsys.readouterr().out
    answered, flows, probes = factors.collect(output)
    for row, other in zip(sorted(protocol_table.rows, key=lambda row: row.key), answered.rows):
        figures = answered.figures(other)
        assert row.key == other.key and {
            name: figures[name] for name in protocol_table.names
        } == protocol_table.figures(row)
        assert figures["drop"] == [figures["aligned"][0] - figures["reversed"][0]]
    assert all(
        0 <= value <= 100
        for row in flows.rows
        for name in FACTORS
        for value in flows.figures(row)[name]
    )
    assert [row.key[2:] for row in probes.rows if row.key[2] == "CDC"] == [
        ("CDC", "tiny", f"{number} of 4") for number in (1, 2, 3, 4)
    ]
    assert "information flow" in printed and "4 of 4" in printed and "chance" in printed

    monkeypatch.setattr(
        factor_measures, "measure", lambda classifier: pytest.fail("measured again")
    )
    assert (
        factors.main([str(output), "--format", "markdown", "--output", str(tmp_path / "t.md")]) == 0
    )
    assert "| factors_cast" in (tmp_path / "t.md").read_text()
    (file,) = output.rglob("CDC/tiny/seed1/factors.json")
    content = json.loads(file.read_text())
    file.write_text(
        json.dumps(
            {**content, "made_from": {**content["made_from"], "prompts_hash": "of other prompts"}}
        )
    )
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        factors.main([str(output)])


# ---- what is missing ----


def test_trouble_is_one_line(tmp_path, capsys, caplog):
    assert factors.main([str(tmp_path)]) == 2
    assert "no run of the protocol factors below" in capsys.readouterr().err
    config = {
        "MODEL": {"BACKBONE": {"NAME": "tiny"}},
        "DATASET": {"FACTORS": {"CORRELATED": "cast"}},
    }
    for part in ("train_biased", "test_independent", "test_reversed"):
        write(tmp_path, part, "CoOp", 1, 50.0, "base", data="factors_cast", config=config)
    write(tmp_path, "train_biased", "CoOp", 2, 50.0, "base", data="factors_cast", config=config)
    assert factors.main([str(tmp_path)]) == 2
    assert "lacks predictions-test.npz: run it again" in capsys.readouterr().err
    assert (
        "left out: factors_cast 16 CoOp tiny seed(s) 2, of which only a part is done" in caplog.text
    )


def test_answers_to_other_emojis_are_refused():
    aligned, reversed_ = (
        said(version, "cast", lambda label, level: label) for version in ("aligned", "reversed")
    )
    reversed_["image"] = reversed_["image"][::-1]
    with pytest.raises(factors.UserError, match="have other emojis, or in another order"):
        factor_measures.measured_on_answers(aligned, reversed_, "cast")


def test_the_protocol_needs_known_factors(capsys):
    assert (
        protocol_run.main(["--protocol", "factors", "--trainer", "CoOp", "--dataset", "openmoji"])
        == 2
    )
    assert (
        "not 'openmoji': --dataset factors_background factors_border factors_cast"
        in capsys.readouterr().err
    )
