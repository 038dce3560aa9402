"""Names for classes and functions."""

from typing import Any

from yacs.config import CfgNode

from dassl.utils.tools import check_availability


class Registry:
    """A named mapping from names to objects; names are the objects' own `__name__`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Store `obj` under its name; without `obj`, a decorator that does so and returns the
        object unchanged."""
        if obj is None:
            return lambda decorated: self.register(decorated, force) or decorated
        if obj.__name__ in self._objects and not force:
            raise KeyError(
                f'An object named "{obj.__name__}" was already registered in "{self._name}" registry'
            )
        self._objects[obj.__name__] = obj

    def get(self, name: str) -> Any:
        if name not in self._objects:
            raise KeyError(f'Object name "{name}" does not exist in "{self._name}" registry')
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._objects)


def build(registry: Registry, what: str, name: str, cfg: CfgNode, **kwargs: Any) -> Any:
    """`name` of `registry` called with `cfg`; `what` it is, for the line that VERBOSE prints."""
    check_availability(name, registry.registered_names())
    if cfg.VERBOSE:
        print(f"Loading {what}: {name}")
    return registry.get(name)(cfg, **kwargs)
