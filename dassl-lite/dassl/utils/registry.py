"""Names for classes and functions."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

Registered = TypeVar("Registered")


class Registry:
    """A named mapping from names to objects; names are the objects' own `__name__`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    @overload
    def register(
        self, obj: None = None, force: bool = False
    ) -> Callable[[Registered], Registered]: ...

    @overload
    def register(self, obj: Any, force: bool = False) -> None: ...

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Store `obj` under its name; without `obj`, a decorator that does so and returns the object unchanged."""
        if obj is not None:
            self._store(obj, force)
            return None

        def decorator(fn_or_class: Registered) -> Registered:
            self._store(fn_or_class, force)
            return fn_or_class

        return decorator

    def _store(self, obj: Any, force: bool) -> None:
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(
                f'An object named "{name}" was already registered in "{self._name}" registry'
            )
        self._objects[name] = obj

    def get(self, name: str) -> Any:
        if name not in self._objects:
            raise KeyError(f'Object name "{name}" does not exist in "{self._name}" registry')
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._objects)
