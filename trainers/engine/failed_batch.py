"""The batch that made a training's loss infinite or no number, kept for inspection."""

import io
import os
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..common.errors import UserError
from ..common.files import write_atomically
from .saved_prompts import SavedPrompts

FILE_NAME = "failed_batch.pt"


def stopped_by_loss(
    trainer: SavedPrompts,
    batch: dict[str, Any],
    images: Tensor,
    labels: Tensor,
    loss: float,
    figures: dict[str, float],
) -> UserError:
    """The error that ends a training, after ``failed_batch.pt`` was written into the run's folder; checkpoints are left as they are.

    The file loads with ``torch.load(…, weights_only=True)`` into a dict: ``epoch``, ``batch`` (of the epoch) and ``step`` (of the run), all
    from 1; ``loss`` and the ``figures`` beside it; ``images`` (V, B, 3, H, W) as the encoder takes them, ``labels`` (B,) and ``paths``; and
    ``prompts``, the state with which the loss was computed, and ``learning_rate``.

    Args:
        trainer: the ``PromptTrainer``; batch: what its loader gave; images, labels: see ``PromptTrainer.parse_batch_train``.
        loss: a number; figures: see ``PromptTrainer.loss``.

    Returns:
        UserError: the line says at which step, and where the file is.
    """
    step = trainer.epoch * trainer.num_batches + trainer.batch_idx + 1
    path = os.path.join(trainer.output_dir, FILE_NAME)
    kept = {
        "epoch": trainer.epoch + 1,
        "batch": trainer.batch_idx + 1,
        "step": step,
        "loss": loss,
        "figures": figures,
        "images": distributed.divided(lambda own: images[:, own], len(labels)).cpu(),
        "labels": labels.cpu(),
        "paths": batch["impath"],
        "prompts": {
            name: value.cpu() for name, value in trainer.prompt_learner.state_dict().items()
        },
        "learning_rate": trainer.get_current_lr(),
    }
    where = f"{path} holds the batch and the prompts"
    if distributed.is_first():
        try:
            write_atomically(path, lambda temporary: write(kept, temporary))
        except OSError as error:
            where = f"the batch can't be kept in {path} ({error.strerror})"
    distributed.wait()  # an earlier error would interrupt the writing
    return UserError(
        f"the loss is {loss} at step {step} (epoch {trainer.epoch + 1}, batch {trainer.batch_idx + 1}): {where}; lower OPTIM.LR, or "
        f"compute with TRAINER.{type(trainer).__name__.upper()}.PREC fp32"
    )


def write(content: dict[str, Any], path: str) -> None:
    """``torch.save`` by way of memory: its own writing to a file has no error that says what is wrong."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with open(path, "wb") as file:
        file.write(buffer.getbuffer())
