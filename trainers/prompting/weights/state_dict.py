"""Files of weights → state dicts with the names of OpenAI's. Nothing in a file is run."""

import zipfile
from typing import Any

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.readers import check_archive
from .torchscript import read_torchscript

SCALARS = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # kept in the state dict for the record, not parameters


def read_state_dict(path: str) -> dict[str, Tensor]:
    """State dict of a file, all tensors fp32 on the CPU.

    Args:
        path: a TorchScript archive, a state dict saved with ``torch.save``, also as ``state_dict`` of a training's checkpoint and from
            parallel training, or a ``.safetensors`` file.

    Raises:
        UserError: the file is none of them.
    """
    try:
        state = read(path)
    except ImportError as error:
        raise UserError(
            f"{path} needs the package {error.name} to be read: pip install {error.name}"
        ) from error
    except Exception as error:  # damaged or hostile bytes can raise anything
        raise UserError(f"{path} can't be read as CLIP weights: {first_line(error)}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError(f"{path} holds no state dict but a {type(state).__name__}")
    swollen = next(
        (
            key
            for key, value in state.items()
            if torch.is_tensor(value) and value.nbytes > value.untyped_storage().nbytes()
        ),
        None,
    )
    if swollen is not None:
        raise UserError(
            f"{path} can't be read as CLIP weights: {swollen} has more numbers than are stored of it"
        )
    return {
        key.removeprefix("module."): value.float()
        for key, value in state.items()
        if torch.is_tensor(value) and key not in SCALARS
    }


def read(path: str) -> Any:
    if path.endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    check_archive(path)
    if is_torchscript(path):
        return read_torchscript(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__


def is_torchscript(path: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
