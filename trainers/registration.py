"""Brings a method into Dassl, where there is one: the methods themselves need none."""

from typing import TYPE_CHECKING

from .host import has_dassl
from .method import Method

if TYPE_CHECKING:
    from .trainer import MethodTrainer


def registered(method: type[Method]) -> "type[MethodTrainer] | None":
    """The trainer of a method, registered with Dassl under the method's name; None without Dassl."""
    if not has_dassl():
        return None
    from .trainer import trainer_of

    return trainer_of(method)
