"""Trainers: register yours with @TRAINER_REGISTRY.register()."""

from dassl.engine.build import TRAINER_REGISTRY, build_trainer
from dassl.engine.trainer import SimpleTrainer, TrainerBase, TrainerX

__all__ = ["SimpleTrainer", "TRAINER_REGISTRY", "TrainerBase", "TrainerX", "build_trainer"]
