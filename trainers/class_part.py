"""What a method's learner has learned of the trained classes alone, and what of it serves a list of
others: names are names, so their order says nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

ADDED = -1  # in the place of a trained class's number: the class was not trained
State = Mapping[str, Tensor]  # a learner's, as torch has it


@dataclass(frozen=True)
class ClassPart:
    """The part of a learner that serves the trained classes alone; the rest serves any class.

    Attributes:
        names: of the learner's parameters, buffers and modules that belong to it; without any there
            is no such part.
        rows: name in the learner's state → dimension along which it has one row per trained class.
            What is no row serves any of the trained classes.
    """

    names: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)

    def holds(self, name: str) -> bool:
        """Whether what has this name in the learner's state belongs to the part."""
        return name.partition(".")[0] in self.names

    def without(self, state: State) -> dict[str, Tensor]:
        """The rest of a learner's state."""
        return {name: value for name, value in state.items() if not self.holds(name)}

    def of_classes(self, state: State, classes: Sequence[int]) -> dict[str, Tensor]:
        """A learner's state with the rows of some of the trained classes, which are given by their
        numbers."""
        chosen = dict(state)
        for name, dimension in self.rows.items():
            value = state[name]
            chosen[name] = value.index_select(dimension, torch.tensor(classes, device=value.device))
        return chosen


@dataclass(frozen=True)
class Trained:
    """What a training has made: the learner's state, for these class names."""

    state: State
    classnames: Sequence[str]

    def numbers(self, asked: Sequence[str]) -> list[int]:
        """Which of the trained classes each name is, or ``ADDED``."""
        known = {name: number for number, name in enumerate(self.classnames)}
        return [known.get(name, ADDED) for name in asked]
