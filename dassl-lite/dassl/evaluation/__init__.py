"""From logits to figures."""

from dassl.evaluation.build import EVALUATOR_REGISTRY, EvaluatorBase, build_evaluator
from dassl.evaluation.evaluator import Classification

__all__ = ["Classification", "EVALUATOR_REGISTRY", "EvaluatorBase", "build_evaluator"]
