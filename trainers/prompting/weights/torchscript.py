"""Reads the weights of a TorchScript archive, the format of OpenAI's CLIPs; nothing in it is run.

``torch.jit.load`` runs code that the archive brings along (a module's own ``__setstate__``), and
that code can write files. Here only the pickle of the weights is read, with stand-ins for all that
it names.
"""

import pickle
import zipfile
from collections.abc import Iterator

import torch
from torch import Tensor

from ...common.readers import BoundedUnpickler

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
}
MASK = "attn_mask"  # a tensor of CLIP's modules that is neither parameter nor buffer


class StoredModule:
    """Stands for a module of the archive: its parts by name, and the name of its class."""

    class_name = ""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"{self.class_name} unpacks itself by code of its own")
        self.held = state


class WeightsUnpickler(BoundedUnpickler):
    """Admits modules, tensors, lists, numbers and strings.

    Raises:
        pickle.UnpicklingError: the pickle names anything else; it has not been imported or called.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive = archive
        self.root = root

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("__torch__"):
            return type("StoredModule", (StoredModule,), {"class_name": f"{module}.{name}"})
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(
                size, stride, offset
            )
        if (module, name) == ("collections", "OrderedDict"):  # a tensor's hooks: there are none
            return lambda *_: None
        # lists and dicts with their types
        is_typed = name.startswith("build_") or name == "restore_type_tag"
        if module == "torch.jit._pickle" and is_typed:
            return lambda content, *_: content
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights don't need")

    def persistent_load(self, identity: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        """A storage, as a tensor of one dimension."""
        _, dtype, key, _, count = identity
        content = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def read_torchscript(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """State dict of a CLIP's archive, the same as of the module that ``torch.jit.load`` gives.

    Raises:
        Exception: of any kind, where the archive is damaged or hostile; nothing of it has been run.
    """
    root = archive.namelist()[0].split("/")[0]
    return dict(tensors(WeightsUnpickler(archive, root).load()))


def tensors(module: StoredModule, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields name and tensor of all that a stored module and those in it hold, but masks."""
    for name, value in module.held.items():
        if isinstance(value, StoredModule):
            yield from tensors(value, f"{prefix}{name}.")
        elif torch.is_tensor(value) and name != MASK:
            yield prefix + name, value
