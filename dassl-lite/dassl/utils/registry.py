"""Names for classes and functions."""

from collections.abc import Callable
from typing import Generic, TypeVar, overload

from yacs.config import CfgNode

from dassl.utils.tools import check_availability

Built = TypeVar("Built")
Entry = TypeVar("Entry", bound=Callable[..., object])


class Registry(Generic[Entry]):
    """A named mapping from names to classes or functions; names are the objects' own `__name__`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Entry] = {}

    @overload
    def register(self, obj: None = None, force: bool = False) -> Callable[[Entry], Entry]: ...

    @overload
    def register(self, obj: Entry, force: bool = False) -> None: ...

    def register(
        self, obj: Entry | None = None, force: bool = False
    ) -> Callable[[Entry], Entry] | None:
        """Store `obj` under its name; without `obj`, a decorator that does so and returns the
        object unchanged."""
        if obj is None:
            return lambda decorated: self.register(decorated, force) or decorated
        if obj.__name__ in self._objects and not force:
            raise KeyError(
                f'An object named "{obj.__name__}" was already registered in "{self._name}" registry'
            )
        self._objects[obj.__name__] = obj
        return None

    def get(self, name: str) -> Entry:
        if name not in self._objects:
            raise KeyError(f'Object name "{name}" does not exist in "{self._name}" registry')
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._objects)


def build(
    registry: Registry[Callable[..., Built]], what: str, name: str, cfg: CfgNode, **kwargs: object
) -> Built:
    """`name` of `registry` called with `cfg`; `what` it is, for the line that VERBOSE prints."""
    check_availability(name, registry.registered_names())
    if cfg.VERBOSE:
        print(f"Loading {what}: {name}")
    return registry.get(name)(cfg, **kwargs)
