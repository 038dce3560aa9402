"""The evaluator and the metrics against figures worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator
from dassl.metrics import compute_accuracy

NAMES = {0: "cat", 1: "dog", 2: "owl"}
# class 0: 2 of 3 right (the third taken for 1); class 1: 1 of 2 (the other taken for 2); class 2 never asked
TRUE, PRED = [0, 0, 0, 1, 1], [0, 0, 1, 1, 2]


def filled(cfg, lab2cname=NAMES):
    evaluator = Classification(cfg, lab2cname=lab2cname)
    evaluator.reset()
    for batch in (slice(0, 2), slice(2, 5)):
        logits = torch.nn.functional.one_hot(torch.tensor(PRED[batch]), 3).float()
        evaluator.process(logits, torch.tensor(TRUE[batch]))
    return evaluator


def f1(tp, fp, fn):
    return 2 * tp / (2 * tp + fp + fn)


MACRO_F1 = 100 * (f1(2, 0, 1) + f1(1, 1, 1)) / 2  # over classes that occur


def test_figures_by_hand(make_cfg, capsys):
    results = filled(make_cfg()).evaluate()
    assert list(results) == ["accuracy", "error_rate", "macro_f1"]
    assert list(results.values()) == pytest.approx([60.0, 40.0, MACRO_F1])
    assert all(type(v) is float for v in results.values())
    assert capsys.readouterr().out == (
        "=> result\n* total: 5\n* correct: 3\n* accuracy: 60.0%\n* error: 40.0%\n"
        f"* macro_f1: {MACRO_F1:.1f}%\n"
    )


def test_totals_have_thousands_separators(make_cfg, capsys):
    evaluator = Classification(make_cfg())
    evaluator.process(
        torch.eye(2)[torch.zeros(8100, dtype=torch.long)], (torch.arange(8100) >= 4500).long()
    )
    evaluator.evaluate()
    assert (
        "* total: 8,100\n* correct: 4,500\n* accuracy: 55.6%\n* error: 44.4%"
        in capsys.readouterr().out
    )


def test_figures_per_class(make_cfg, capsys):
    results = filled(make_cfg(TEST__PER_CLASS_RESULT=True)).evaluate()
    assert results["perclass_accuracy"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert list(results)[0] == "accuracy" and type(results["perclass_accuracy"]) is float
    assert capsys.readouterr().out.split("=> per-class result\n")[1] == (
        "* class: 0 (cat)\ttotal: 3\tcorrect: 2\tacc: 66.7%\n"
        "* class: 1 (dog)\ttotal: 2\tcorrect: 1\tacc: 50.0%\n"
        "* average: 58.3%\n"
    )


def test_the_confusion_matrix_has_rows_that_sum_to_one(make_cfg, capsys):
    cfg = make_cfg(TEST__COMPUTE_CMAT=True)
    filled(cfg).evaluate()
    matrix = torch.load(f"{cfg.OUTPUT_DIR}/cmat.pt", weights_only=True)
    expected = [[2 / 3, 1 / 3, 0], [0, 1 / 2, 1 / 2], [0, 0, 0]]
    assert np.allclose(matrix, expected)
    assert f"Confusion matrix is saved to {cfg.OUTPUT_DIR}/cmat.pt" in capsys.readouterr().out


def test_reset_forgets(make_cfg, capsys):
    evaluator = filled(make_cfg(TEST__PER_CLASS_RESULT=True))
    evaluator.reset()
    evaluator.process(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1]))
    assert evaluator.evaluate()["accuracy"] == 100.0
    assert "class: 0" not in capsys.readouterr().out


def test_evaluating_nothing_or_without_names_is_refused(make_cfg):
    with pytest.raises(ValueError, match="Nothing to evaluate"):
        Classification(make_cfg()).evaluate()
    with pytest.raises(ValueError, match="needs the class names"):
        Classification(make_cfg(TEST__PER_CLASS_RESULT=True))


def test_the_evaluator_is_built_by_name(make_cfg, capsys):
    evaluator = build_evaluator(make_cfg(), lab2cname=NAMES)
    assert type(evaluator) is Classification and isinstance(evaluator, EvaluatorBase)
    assert capsys.readouterr().out == "Loading evaluator: Classification\n"
    build_evaluator(make_cfg(VERBOSE=False), lab2cname=NAMES)
    assert capsys.readouterr().out == ""
    with pytest.raises(
        ValueError, match=r"got \[Clasification\] \(do you mean \[Classification\]\?\)"
    ):
        build_evaluator(make_cfg(TEST__EVALUATOR="Clasification"))


def test_a_custom_evaluator_needs_only_to_be_registered(make_cfg):
    class LiteCount(EvaluatorBase):
        def __init__(self, cfg, **kwargs):
            super().__init__(cfg)
            self.kwargs = kwargs

    EVALUATOR_REGISTRY.register(LiteCount, force=True)
    evaluator = build_evaluator(make_cfg(TEST__EVALUATOR="LiteCount"), lab2cname=NAMES)
    assert evaluator.kwargs == {"lab2cname": NAMES}
    for call in (evaluator.reset, lambda: evaluator.process(None, None), evaluator.evaluate):
        with pytest.raises(NotImplementedError):
            call()


LOGITS = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
TARGET = torch.tensor([0, 2, 2, 1])


def test_accuracy_by_hand():
    (top1,) = compute_accuracy(LOGITS, TARGET)
    assert top1.shape == (1,) and top1.item() == 50.0
    assert compute_accuracy((LOGITS, "features"), TARGET)[0].item() == 50.0
    assert compute_accuracy([LOGITS], TARGET)[0].item() == 50.0


def test_the_evaluator_asks_only_for_its_own_keys():
    cfg = SimpleNamespace(TEST=SimpleNamespace(PER_CLASS_RESULT=False, COMPUTE_CMAT=False))
    Classification(cfg)
