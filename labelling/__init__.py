"""Labelling one's own pictures with the trainers of the library: a folder of class folders is trained on,
and new pictures are answered, with a promise of how many labels are wrong.

``PromptedClassifier``, a trained run as a classifier, is loaded when it is asked for: importing the package
takes no time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .classifier import PromptedClassifier as PromptedClassifier


def __getattr__(name: str) -> object:
    if name == "PromptedClassifier":
        from .classifier import PromptedClassifier

        return PromptedClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
