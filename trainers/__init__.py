"""Prompt-learning trainers for Dassl: one file per method. Importing a method's module registers its trainer.

``PromptedClassifier``, a trained run as a classifier, is loaded when it is asked for: importing the package registers nothing.
"""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .classifier import PromptedClassifier as PromptedClassifier


def __getattr__(name: str) -> object:
    if name == "PromptedClassifier":
        from .classifier import PromptedClassifier
        return PromptedClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
