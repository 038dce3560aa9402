"""Accuracy, error and macro F1 of a classifier."""

import os
import random
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.evaluation.build import EVALUATOR_REGISTRY, EvaluatorBase
from dassl.utils.tools import write_whole


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Top-1 figures in percent, on request per class and as a confusion matrix, whose rows are the true
    classes and sum to one."""

    def __init__(
        self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, **kwargs: object
    ) -> None:
        super().__init__(cfg)
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Add a batch: model output (b, classes), ground truth (b,)."""
        self._y_true += gt.tolist()
        self._y_pred += mo.max(1)[1].tolist()

    def evaluate(self) -> OrderedDict[str, float]:
        total = len(self._y_true)
        # Here, since importing a trainer must not take its time. The import draws from Python's
        # generator, where a training must go on as if it had not.
        state = random.getstate()
        from sklearn.metrics import confusion_matrix, f1_score

        random.setstate(state)
        labels = np.array(self._y_true)
        pred = np.array(self._y_pred)
        correct = int((labels == pred).sum())
        acc = 100.0 * correct / total
        macro_f1 = 100.0 * float(f1_score(labels, pred, average="macro", labels=np.unique(labels)))
        results = OrderedDict(accuracy=acc, error_rate=100.0 - acc, macro_f1=macro_f1)
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {acc:.1f}%\n"
            f"* error: {100.0 - acc:.1f}%\n"
            f"* macro_f1: {macro_f1:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            print("=> per-class result")
            accuracies = []
            for label in np.unique(labels).tolist():
                hits = pred[labels == label] == label
                accuracies.append(100.0 * hits.mean())
                print(
                    f"* class: {label} ({self._lab2cname[label]})\t"
                    f"total: {len(hits):,}\tcorrect: {hits.sum():,}\tacc: {accuracies[-1]:.1f}%"
                )
            results["perclass_accuracy"] = mean = float(np.mean(accuracies))
            print(f"* average: {mean:.1f}%")
        if self.cfg.TEST.COMPUTE_CMAT:
            # a tensor: torch.load refuses Dassl's pickled array
            matrix = torch.from_numpy(confusion_matrix(labels, pred, normalize="true"))
            path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
            write_whole(path, lambda file: torch.save(matrix, file))
            print(f"Confusion matrix is saved to {path}")
        return results
