"""Accuracy, error and macro F1 of a classifier."""

import os
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.evaluation.build import EVALUATOR_REGISTRY, EvaluatorBase
from dassl.utils import mkdir_if_missing


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Top-1 figures in percent, on request per class and with a confusion matrix."""

    def __init__(
        self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cfg)
        self._lab2cname = lab2cname or {}
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs the class names: pass lab2cname")
        self.reset()

    def reset(self) -> None:
        self._correct = 0
        self._total = 0
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Add a batch: model output (b, classes), ground truth (b,)."""
        pred = mo.max(1)[1]
        self._correct += int(pred.eq(gt).sum().item())
        self._total += gt.shape[0]
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(pred.tolist())

    def evaluate(self) -> OrderedDict[str, float]:
        if self._total == 0:
            raise ValueError("Nothing to evaluate: no batch was processed")
        from sklearn.metrics import f1_score  # here: importing a trainer must not take its time

        acc = 100.0 * self._correct / self._total
        err = 100.0 - acc
        macro_f1 = 100.0 * float(
            f1_score(self._y_true, self._y_pred, average="macro", labels=np.unique(self._y_true))
        )
        results = OrderedDict(accuracy=acc, error_rate=err, macro_f1=macro_f1)
        print(
            "=> result\n"
            f"* total: {self._total:,}\n"
            f"* correct: {self._correct:,}\n"
            f"* accuracy: {acc:.1f}%\n"
            f"* error: {err:.1f}%\n"
            f"* macro_f1: {macro_f1:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._per_class()
        if self.cfg.TEST.COMPUTE_CMAT:
            self._confusion_matrix()
        return results

    def _per_class(self) -> float:
        """Print each class's figures; returns the mean of the classes' accuracies."""
        hits = defaultdict(list)
        for label, pred in zip(self._y_true, self._y_pred):
            hits[label].append(int(label == pred))
        print("=> per-class result")
        accuracies = []
        for label in sorted(hits):
            total, correct = len(hits[label]), sum(hits[label])
            accuracies.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname[label]})\t"
                f"total: {total:,}\tcorrect: {correct:,}\tacc: {accuracies[-1]:.1f}%"
            )
        mean = float(np.mean(accuracies))
        print(f"* average: {mean:.1f}%")
        return mean

    def _confusion_matrix(self) -> None:
        from sklearn.metrics import confusion_matrix

        matrix = confusion_matrix(self._y_true, self._y_pred, normalize="true")
        mkdir_if_missing(self.cfg.OUTPUT_DIR)
        path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        torch.save(
            torch.from_numpy(matrix), path
        )  # a tensor, since torch.load refuses numpy arrays by default
        print(f"Confusion matrix is saved to {path}")
