"""Labelling one's own pictures with the trainers of the library: a folder of class folders is trained on,
and new pictures are answered, with a promise of how many labels are wrong.

``PromptedClassifier``, a trained run as a classifier, and ``SeveralClassifier``, one of several labels
per picture, are loaded when they are asked for: importing the package takes no time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .classifier import PromptedClassifier as PromptedClassifier
    from .several.classifier import SeveralClassifier as SeveralClassifier


def __getattr__(name: str) -> object:
    if name == "PromptedClassifier":
        from .classifier import PromptedClassifier

        return PromptedClassifier
    if name == "SeveralClassifier":
        from .several.classifier import SeveralClassifier

        return SeveralClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
