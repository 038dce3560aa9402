"""Names for classes and functions."""


class Registry:
    """A named mapping from names to objects; names are the objects' own `__name__`."""

    def __init__(self, name):
        self._name = name
        self._objects = {}

    def register(self, obj=None, force=False):
        """Store `obj` under its name; without `obj`, a decorator that does so and returns the object unchanged."""
        if obj is not None:
            self._store(obj, force)
            return None

        def decorator(fn_or_class):
            self._store(fn_or_class, force)
            return fn_or_class

        return decorator

    def _store(self, obj, force):
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(f'An object named "{name}" was already registered in "{self._name}" registry')
        self._objects[name] = obj

    def get(self, name):
        if name not in self._objects:
            raise KeyError(f'Object name "{name}" does not exist in "{self._name}" registry')
        return self._objects[name]

    def registered_names(self):
        """All names, in the order of registration."""
        return list(self._objects)
