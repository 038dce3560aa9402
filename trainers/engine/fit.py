"""``fit``: the training loop, one for all that learns in epochs: Dassl's trainer, ``PromptedClassifier.fit``,
cross-validation, and your own tensors in a notebook. It knows no data set, no disk and no command.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..common.errors import UserError
from ..method import Batches, Method, TrainingImages
from .loss import CompiledLoss, Loss, batch_loss
from .progress import Step

# images (V, B, 3, H, W), one for each view, and labels (B,); where they are known already also the
# frozen CLIP's features (V, B, E) of the images
TrainingBatch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]


class TrainingBatches(Protocol):
    """The training batches: all of an epoch, drawn anew whenever it is iterated."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[TrainingBatch]: ...


def nothing(*_: object) -> None:
    """A callback that does nothing."""


def fit(
    method: Method,
    batches: TrainingBatches,
    optimizer: Optimizer,
    schedule: LRScheduler,
    epochs: int,
    *,
    images: TrainingImages | None = None,
    validation: Batches | None = None,
    scaler: GradScaler | None = None,
    done: int = 0,
    is_compiled: bool = False,
    after_step: Callable[[Step], None] = nothing,
    after_epoch: Callable[[int], None] = nothing,
    after_epochs: Callable[[], None] = nothing,
) -> bool:
    """Trains a method's learnable parts in epochs; it is left in evaluation mode.

    Args:
        method: the method to train, on its device.
        batches: to train on, on any device, as all images here.
        optimizer: of the learnable parts (``Method.parameter_groups``).
        schedule: of its learning rate, stepped after each epoch.
        epochs: of the whole training; done: the epochs before, in a run that goes on.
        images: the training images as some methods look at them before and after the epochs;
            without, the first view of ``batches``.
        validation: images (1, B, 3, H, W) and labels, for the fits after the epochs.
        scaler: of the loss under float16; without, a new one.
        is_compiled: whether the loss is computed by ``CompiledLoss``.
        after_step: is given each step; after_epoch: the number of each epoch from 0, when its
            prompts are those to keep; after_epochs: comes before ``Method.complete``, to put the
            best epoch's prompts in the last one's place.

    Returns:
        whether the learnable parts have changed after the last epoch.

    Raises:
        UserError: a loss, or an answer after the last step, is infinite or NaN; or the loss can't be
            compiled.
    """
    shown = partial(first_views, batches) if images is None else images
    training = on_device(shown, method.device)
    if validation is not None:
        validation = OnDevice(validation, method.device)
    if scaler is None:
        scaler = scaler_of(method)
    loss_of = CompiledLoss(method) if is_compiled else batch_loss
    steps = len(batches)
    if done == 0:
        with torch.random.fork_rng(devices=[]):  # nothing that is drawn later depends on its passes
            method.start(training, validation)
    for epoch in range(done, epochs):
        method.train()
        for number, batch in enumerate(batches):
            started = time.perf_counter()
            place = f"step {epoch * steps + number + 1} (epoch {epoch + 1}, batch {number + 1})"
            figures = training_step(method, batch, optimizer, scaler, place, loss_of)
            seconds = time.perf_counter() - started
            lr = optimizer.param_groups[0]["lr"]
            after_step(Step(epoch, number, steps, figures, lr, seconds))
        schedule.step()
        method.end_epoch(epoch, epochs)
        if epoch + 1 == epochs:
            method.eval()
            check_last_step(method, batch)
        after_epoch(epoch)
    method.eval()
    after_epochs()
    with torch.random.fork_rng(devices=[]):
        return method.complete(training, validation)


def fit_once(method: Method, images: TrainingImages, validation: Batches | None) -> None:
    """Fit a method that learns without epochs; it is left in evaluation mode.

    Args:
        images: the training images, on its device; validation: as in ``fit``.
    """
    method.eval()
    with torch.random.fork_rng(devices=[]):  # nothing that is drawn later depends on its passes
        method.start(images, validation)
        method.complete(images, validation)


def scaler_of(method: Method) -> GradScaler:
    """A new scaler of a method's loss, which float16 alone needs."""
    is_half = method.towers.autocast_dtype == torch.float16
    return GradScaler(method.device.type, enabled=is_half)


def training_step(
    method: Method,
    batch: TrainingBatch,
    optimizer: Optimizer,
    scaler: GradScaler,
    place: str,
    loss_of: Loss = batch_loss,
) -> dict[str, float]:
    """One step on a batch.

    Args:
        place: where it is in the training, for messages.
        loss_of: computes the loss.

    Returns:
        its ``Step.figures``.

    Raises:
        UserError: the loss is infinite or NaN.
    """
    loss, figures = loss_of(method, *(part.to(method.device) for part in batch))
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    measured = {"loss": loss.detach(), **figures}
    # one wait for the device in a step: it computes while the next operations are started
    numbers = torch.stack([value.detach() for value in measured.values()]).tolist()
    if not math.isfinite(numbers[0]):
        raise UserError(
            f"the loss is {numbers[0]} at {place}: lower OPTIM.LR, the learning rate, or compute "
            f"with {method.path}.PREC fp32"
        )
    return dict(zip(measured, numbers))


@torch.no_grad()
def check_last_step(method: Method, batch: TrainingBatch) -> None:
    """Check that the answers are finite after the last step.

    Raises:
        UserError: the answers to the last batch are infinite or NaN, which the last step can cause
            after the last loss.
    """
    images = batch[0].to(method.device)
    with torch.random.fork_rng(devices=[]):  # nothing that is drawn later depends on this pass
        answer = method.predict(method(images).logits)
    if not answer.is_finite:
        raise UserError(
            "the answers are infinite or NaN after the last step: lower OPTIM.LR, the learning "
            f"rate, or compute with {method.path}.PREC fp32"
        )


class OnDevice:
    """Batches on a device, wherever they come from."""

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self.batches = batches
        self.device = device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.batches:
            yield images.to(self.device), labels.to(self.device)


def on_device(images: TrainingImages, device: torch.device) -> TrainingImages:
    """Return training images whose batches come to a device."""

    def shown(most: int | None = None, augmented: bool = False) -> Batches:
        return OnDevice(images(most, augmented), device)

    return shown


def first_views(batches: TrainingBatches, most: int | None, augmented: bool) -> Batches:
    """Yield the training images of ``batches`` in place of a data set's ``TrainingImages``."""
    seen = 0
    for images, labels, *_ in batches:
        if most is not None and seen >= most:
            return
        seen += len(labels)
        yield images[:1], labels
