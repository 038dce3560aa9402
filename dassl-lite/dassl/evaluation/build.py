"""The registry of evaluators, and their base."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor
from yacs.config import CfgNode

from dassl.utils import Registry
from dassl.utils.registry import build


class EvaluatorBase:
    """A trainer's interface to an evaluator: reset, process batches, evaluate to a dict whose first
    value is the score."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, float]:
        raise NotImplementedError


EVALUATOR_REGISTRY: Registry[Callable[..., EvaluatorBase]] = Registry("EVALUATOR")


def build_evaluator(cfg: CfgNode, **kwargs: object) -> EvaluatorBase:
    return build(EVALUATOR_REGISTRY, "evaluator", cfg.TEST.EVALUATOR, cfg, **kwargs)
