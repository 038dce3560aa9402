"""A trained run as a classifier, and its export."""

from .prompted import Answers as Answers
from .prompted import PromptedClassifier as PromptedClassifier
