"""Prompt-learning trainers for Dassl: one file per method. Importing a method's module registers its trainer.

``PromptedClassifier``, a trained run as a classifier, is loaded when it is asked for: importing the package registers nothing.
"""


def __getattr__(name):
    if name == "PromptedClassifier":
        from .classifier import PromptedClassifier
        return PromptedClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
