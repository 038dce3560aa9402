"""Two modules of the ``clip`` package: its tokenizer and its ResNet.

They are loaded from their files. The package's own ``__init__`` asks ``pkg_resources``, which
setuptools no longer has, for the version of torch.
"""

from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


@cache
def clip_module(name: str) -> ModuleType:
    """The module ``clip.<name>``.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    package = find_spec("clip")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'clip'", name="clip")
    path = Path(package.origin).with_name(f"{name}.py")
    spec = spec_from_file_location(f"{__name__}.{name}", path)
    assert spec is not None and spec.loader is not None  # as the file is named .py
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
