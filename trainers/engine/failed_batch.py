"""The batch that made a training's loss infinite or no number, kept for inspection."""

import io
import os
from typing import Any

import torch

from ..common.errors import UserError
from ..common.files import write_atomically

FILE_NAME = "failed_batch.pt"


def stopped_by_loss(folder: str, node: str, **kept: Any) -> UserError:
    """The error that ends a training, after ``failed_batch.pt`` was written into the run's folder.

    The file loads with ``torch.load(…, weights_only=True)`` into the dict ``kept``: ``epoch``, ``batch``
    (of the epoch) and ``step`` (of the run), all from 1; ``loss`` and the ``figures`` beside it;
    ``images`` (V, B, 3, H, W) as the encoder takes them, ``labels`` (B,) and ``paths``; and ``prompts``,
    the state with which the loss was computed, and ``learning_rate``.

    Args:
        folder: the run's; node: name of the method's settings.

    Returns:
        UserError: the line says at which step, and where the file is.
    """
    path = os.path.join(folder, FILE_NAME)
    content = io.BytesIO()  # torch's own writing to a file has no error that says what is wrong
    torch.save(kept, content)

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())

    where = f"{path} holds the batch and the prompts"
    try:
        write_atomically(path, write)
    except OSError as error:
        where = f"the batch can't be kept in {path} ({error.strerror})"
    return UserError(
        f"the loss is {kept['loss']} at step {kept['step']} (epoch {kept['epoch']}, batch {kept['batch']}): "
        f"{where}; lower OPTIM.LR, or compute with {node}.PREC fp32"
    )
