"""The evaluator and the metrics against figures worked out by hand."""

import pytest
import torch
from dassl.evaluation import Classification
from dassl.metrics import compute_accuracy

NAMES = {0: "cat", 1: "dog", 2: "owl"}
# class 0: 2 of 3 right (the third taken for 1); class 1: 1 of 2 (the other taken for 2); class 2
# never asked
TRUE, PRED = [0, 0, 0, 1, 1], [0, 0, 1, 1, 2]
MACRO_F1 = 100 * (2 * 2 / (2 * 2 + 0 + 1) + 2 * 1 / (2 * 1 + 1 + 1)) / 2  # 2 tp / (2 tp + fp + fn)


def test_figures_by_hand_also_per_class_and_after_a_reset(make_cfg, capsys):
    cfg = make_cfg(TEST__PER_CLASS_RESULT=True)
    evaluator = Classification(cfg, lab2cname=NAMES)
    evaluator.process(torch.eye(3)[[2]], torch.tensor([2]))
    evaluator.reset()  # forgets it
    for batch in (slice(0, 2), slice(2, 5)):
        evaluator.process(torch.eye(3)[PRED[batch]], torch.tensor(TRUE[batch]))
    results = evaluator.evaluate()
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "perclass_accuracy"]
    assert list(results.values()) == pytest.approx([60, 40, MACRO_F1, 100 * (2 / 3 + 1 / 2) / 2])
    assert capsys.readouterr().out == (
        "=> result\n* total: 5\n* correct: 3\n* accuracy: 60.0%\n* error: 40.0%\n"
        f"* macro_f1: {MACRO_F1:.1f}%\n=> per-class result\n"
        "* class: 0 (cat)\ttotal: 3\tcorrect: 2\tacc: 66.7%\n"
        "* class: 1 (dog)\ttotal: 2\tcorrect: 1\tacc: 50.0%\n* average: 58.3%\n"
    )


def test_a_confusion_matrix_has_the_shares_of_each_class_and_is_written(make_cfg, tmp_path):
    evaluator = Classification(make_cfg(TEST__COMPUTE_CMAT=True, OUTPUT_DIR=str(tmp_path)))
    evaluator.process(torch.eye(3)[PRED], torch.tensor(TRUE))
    evaluator.evaluate()
    expected = [[2 / 3, 1 / 3, 0], [0, 1 / 2, 1 / 2], [0, 0, 0]]
    assert torch.load(tmp_path / "cmat.pt", weights_only=True).tolist() == expected


def test_accuracy_counts_targets_among_the_k_highest():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    labels = torch.tensor([0, 2, 2, 1])
    for output in (logits, (logits, "more")):
        accuracies = compute_accuracy(output, labels, topk=(1, 2, 3))
        assert [value.item() for value in accuracies] == [50, 75, 100]
