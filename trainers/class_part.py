"""The part of a method's learner that belongs to the trained classes alone, and its use for a list of
others: names are names, so their order means nothing."""

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
        names: of the learner's parameters, buffers and modules that belong to it; without any, the learner has
            no such part.
        rows: name in the learner's state → dimension along which it has one row per trained class.
            All else serves any of the trained classes.
    """

    names: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)

    def holds(self, name: str) -> bool:
        """Whether the entry of this name in the learner's state belongs to the part."""
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
    """The result of a training: the learner's state, for these class names."""

    state: State
    classnames: Sequence[str]

    def numbers(self, asked: Sequence[str]) -> list[int]:
        """Return each name's number among the trained classes, or ``ADDED``."""
        known = {name: number for number, name in enumerate(self.classnames)}
        return [known.get(name, ADDED) for name in asked]
