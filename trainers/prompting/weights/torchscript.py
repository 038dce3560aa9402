"""Reads the weights of a TorchScript archive, the format of OpenAI's CLIPs, without running anything in it.

``torch.jit.load`` runs code that the archive brings along (a module's own ``__setstate__``), and that code can write files. Here the pickle
of the weights is read with stand-ins for all that it names, and the code only as text, for what is a parameter or a buffer.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
REGISTERED = r"class {}\(Module\):\s+__parameters__ = \[(.*?)\]\s+__buffers__ = \[(.*?)\]"


class StoredModule:
    """Stands for a module of the archive: what it holds by name, and the name of its class."""

    class_name = ""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"{self.class_name} unpacks itself by code of its own")
        self.held = state


class WeightsUnpickler(pickle._Unpickler):
    """Admits modules, tensors, lists, numbers and strings. In Python: the one in C makes room for whatever number an entry claims to have.

    Raises:
        pickle.UnpicklingError: the pickle names anything else; it has not been imported or called.
    """

    dispatch = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }  # room for any number of bytes

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("StoredModule", (StoredModule,), {"class_name": f"{module}.{name}"})
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(
                size, stride, offset
            )
        if (module, name) == (
            "collections",
            "OrderedDict",
        ):  # a tensor's hooks, of which there are none
            return lambda *_: None
        if module == "torch.jit._pickle" and (
            name.startswith("build_") or name == "restore_type_tag"
        ):  # lists and dicts with their types
            return lambda content, *_: content
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights don't need")

    def persistent_load(self, identity: Any) -> Tensor:
        """A storage, as a tensor of one dimension."""
        _, dtype, key, _, count = identity
        content = self.archive.read(f"{self.root}/data/{key}")
        return (
            torch.frombuffer(bytearray(content), dtype=dtype)
            if count
            else torch.empty(0, dtype=dtype)
        )


def read_torchscript(path: str) -> dict[str, Tensor]:
    """State dict of a TorchScript archive, the same as of the module that ``torch.jit.load`` gives.

    Raises:
        Exception: of any kind, where the archive is damaged or hostile; nothing of it has been run.
    """
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        return dict(tensors(WeightsUnpickler(archive, root).load(), archive, root))


def tensors(
    module: StoredModule, archive: zipfile.ZipFile, root: str, prefix: str = ""
) -> Iterator[tuple[str, Tensor]]:
    """Yields name and tensor of the parameters and buffers of a stored module and those in it."""
    registered = registered_names(archive, root, module.class_name)
    for name, value in module.held.items():
        if isinstance(value, StoredModule):
            yield from tensors(value, archive, root, f"{prefix}{name}.")
        elif torch.is_tensor(value) and (registered is None or name in registered):
            yield prefix + name, value


def registered_names(archive: zipfile.ZipFile, root: str, class_name: str) -> set[str] | None:
    """Names of a class's parameters and buffers; None where the archive, as old ones, does not tell them from other tensors."""
    place, _, name = class_name.rpartition(".")
    code = archive.read(f"{root}/code/{place.replace('.', '/')}.py").decode()
    found = re.search(REGISTERED.format(re.escape(name)), code, re.DOTALL)
    return None if found is None else set(re.findall(r'"(.*?)"', "".join(found.groups())))
