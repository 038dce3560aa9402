"""Whether templates differ: the numbers against textbook loops and closed forms, and real runs."""

import csv
import json

import numpy
import pytest
from sklearn.metrics import cohen_kappa_score

from experiments.lab.templates import agreement, kappa, main, oracle
from protocols import training
from protocols.command_line import parse_arguments
from tests.conftest import BASE
from tests.results.conftest import make_answers, write_run
from tests.runs import base_arguments, call, record_of

# ---- numbers ----


def test_agreement_is_the_share_of_images_with_the_same_class():
    votes = numpy.array([[0, 1, 2, 0], [0, 1, 1, 1]])
    found = agreement(votes, numpy.array([0, 1, 2, 1]), numpy.array([0, 0, 2, 2]))
    assert found.tolist() == [
        [100, 50, 75, 50],
        [50, 100, 75, 25],
        [75, 75, 100, 50],
        [50, 25, 50, 100],
    ]


def test_the_oracle_needs_one_right_vote():
    votes = numpy.array([[0, 1, 2, 0], [0, 1, 1, 1]])
    assert oracle(votes, numpy.array([0, 2, 2, 1])) == 75


def test_kappa_is_scikit_learns_and_one_for_copies_even_of_one_class():
    votes = numpy.vstack([numpy.random.default_rng(1).integers(0, 3, (2, 50)), numpy.ones((2, 50))])
    found = kappa(votes)
    assert found[0, 1] == pytest.approx(cohen_kappa_score(votes[0], votes[1]))
    assert found[2, 3] == 1
    assert found[2, 0] == pytest.approx(0)


# ---- real runs ----


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, data_root, small_clip_file):
    """Base classes of the miniature: CDC with two seeds, CoOp with one; where base to new puts
    them."""
    root = tmp_path_factory.mktemp("base2new")
    what = {"protocol": "base2new", "part": "train_base", "dataset": "dtd", "recipe": "small"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "collect_env_info", lambda: "left out in tests")
        for name, seed in (("CDC", 1), ("CDC", 2), ("CoOp", 1)):
            folder = root / f"train_base/dtd/shots_4/{name}/small/seed{seed}"
            words = base_arguments(name, data_root, small_clip_file, folder, seed)
            training.run(parse_arguments([*words, "--run", json.dumps(what), *BASE]))
    return root


def test_tables_have_the_runs_own_figures_and_mean_and_deviation_over_seeds(
    protocol, capsys, caplog
):
    assert call(main, protocol, "--format", "csv") == 0
    parts = capsys.readouterr().out.split("\n\n")
    titles = ["Templates before and after training", "Accuracy of 4 templates"]
    votes = ["Agreement of the votes in %", "Cohen's kappa of the votes"]
    assert [title.strip() for title in parts[::2]] == titles + votes
    moved, accuracy = (list(csv.DictReader(body.splitlines())) for body in parts[1:4:2])
    folders = (protocol / "train_base/dtd/shots_4/CDC/small").iterdir()
    records = [record_of(folder) for folder in folders]
    (row,) = accuracy
    assert (row["seeds"], row["model"]) == ("2", "CDC small")
    metrics = [record["metrics"]["test"] for record in records]
    of_templates = [of["template_accuracy"] for of in metrics]
    columns = {"fused": [of["accuracy"] for of in metrics]}
    columns |= {f"S{number}": values for number, values in enumerate(zip(*of_templates), 1)}
    for column, values in columns.items():
        assert float(row[f"{column}_mean"]) == pytest.approx(numpy.mean(values), abs=1e-3)
        assert float(row[f"{column}_std"]) == pytest.approx(numpy.std(values, ddof=1), abs=1e-3)
    deviations = "images, between deviations from CLIP's own"
    (shown,) = (row for row in moved if row["100 × cosine"] == deviations)
    after = [record["learned"]["images_deviations_after"] for record in records]
    assert float(shown["after_mean"]) == pytest.approx(100 * numpy.mean(after), abs=1e-3)
    line = "left out: CoOp small, dtd, base classes, has no votes of several templates"
    assert line in caplog.messages


# ---- refusals ----


def test_runs_without_votes_of_several_templates_are_refused(tmp_path, error_of):
    write_run(tmp_path, "train_base", "CDC", 1, "base", make_answers(1, templates=1))
    message = "has votes of several templates: train CDC with TRAINER."
    assert message in error_of(main, tmp_path)
