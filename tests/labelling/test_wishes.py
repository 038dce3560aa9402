"""What is asked of a run's labels, of either task, on answers that are made up."""

import json

import numpy
import pytest

import predict
from labelling.rules import Wanted, rule_of
from labelling.threshold import OFFERED
from tests.labelling.cases import MULTI, over_tasks
from tests.runs import call, make_record, refuses, write_answers, write_validation
from trainers.common.errors import UserError


def write_made_up(task, folder, number, share_wrong):
    """A run whose answers to so many pictures are wrong that often, the least certain ones first."""
    wrong = numpy.arange(number) >= number * (1 - share_wrong)
    certain = numpy.linspace(0.99, 0.6, number).astype("float32")
    if task is not MULTI:
        write_validation(folder, 1 - certain, wrong, fold=numpy.zeros(number, int))
        return
    names = ["ant", "bee"]
    record = make_record(task="multi-label", classnames=names, trainer="BinaryProbe", folds=5)
    (folder / "results.json").write_text(json.dumps(record))
    truth = numpy.stack([~wrong, wrong], axis=1)
    arrays = {
        "image": numpy.array([f"{place}.png" for place in range(number)]),
        "probability": numpy.stack([certain, 1 - certain], axis=1),
        "truth": truth,
        "group": numpy.arange(number),
        "is_new": numpy.ones(number, bool),
        "fold": numpy.arange(number) % 5,
        "threshold": numpy.full((5, 2), 0.5),
    }
    write_answers(folder, "test", arrays)


@over_tasks
def test_the_best_share_is_the_smallest_that_can_be_promised(task, tmp_path):
    write_made_up(task, tmp_path, 600, 0.1)
    had = []
    for share in OFFERED:
        try:
            rule = rule_of(str(tmp_path), Wanted(max_error=share))
        except UserError:
            continue
        if task is MULTI or rule.point is not None:
            had.append(share)
    assert 0 < len(had)
    best = rule_of(str(tmp_path), Wanted(max_error="best"))
    if task is MULTI:
        assert best.says.startswith(f"At most {100 * min(had):g} % of the labels")
        assert best.says.count(". ") == 0, "one sentence"
        assert "Labels a picture: " in best.further
        again = rule_of(str(tmp_path), Wanted(max_error=min(had)))
        assert (best.thresholds == again.thresholds).all()
    else:
        assert best.share == min(had)


@over_tasks
def test_the_best_promise_is_given_or_refused_in_a_line(task, run_of, pictures_of, capsys):
    capsys.readouterr()
    words = "--run", run_of(task), "--max-error", "best"
    code = call(predict.main, *words, pictures_of(task) / "0.png")
    said = capsys.readouterr()
    if code == 2:
        assert "can't promise that at most 20 %" in said.err
    else:
        assert code == 0
        assert "with 95 % confidence" in said.err


@over_tasks
@pytest.mark.parametrize(
    "wanted, message",
    [
        ({"max_error": 1.5}, "--max-error is 1.5, it is a share"),
        ({"confidence": 0}, "--confidence is 0, it is a share"),
        ({"min_certainty": 2}, "--min-certainty is 2, it must be between 0 and 1"),
        ({"max_error": 0.1, "min_certainty": 0.5}, "each say which labels are given: give one"),
    ],
)
def test_what_is_no_wish_is_refused(task, tmp_path, wanted, message):
    write_made_up(task, tmp_path, 40, 0.1)
    with refuses(message):
        rule_of(str(tmp_path), Wanted(**wanted))


@over_tasks
def test_of_other_classes_nothing_is_promised(task, tmp_path):
    write_made_up(task, tmp_path, 600, 0.1)
    with refuses("say nothing of other --classes"):
        rule_of(str(tmp_path), Wanted(max_error=0.2), ["ant", "cow"])
