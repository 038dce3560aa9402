"""Trainers by name."""

from yacs.config import CfgNode

from dassl.engine.trainer import SimpleTrainer
from dassl.utils import Registry
from dassl.utils.registry import build

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> SimpleTrainer:
    trainer: SimpleTrainer = build(TRAINER_REGISTRY, "trainer", cfg.TRAINER.NAME, cfg)
    return trainer
