"""Progress of a training: its bar, its lines in ``metrics.jsonl`` and the log, and the time of its
steps."""

import logging
import time
from collections import defaultdict
from dataclasses import dataclass

from tqdm import tqdm

from ..common.metrics import write_metrics

log = logging.getLogger(__name__)


@dataclass
class Step:
    """A step that was made.

    Attributes:
        epoch, batch: from 0; batches: of an epoch.
        figures: its ``loss``, its accuracy ``acc`` in percent, and the method's further figures.
        lr: the learning rate of the first group of parameters.
        seconds: that it took, without waiting for its batch.
    """

    epoch: int
    batch: int
    batches: int
    figures: dict[str, float]
    lr: float
    seconds: float


class Progress:
    """Follows a training from step to step.

    Args:
        folder: of the run; title: shown beside the bar.
        epochs, batches: of the whole training, and of an epoch; done: epochs done before.
        every: batches a line in ``metrics.jsonl`` and the log.

    Attributes:
        step_seconds: of each step, without waiting for its batch.
    """

    def __init__(
        self, folder: str, title: str, epochs: int, batches: int, done: int, every: int
    ) -> None:
        self.folder = folder
        self.epochs = epochs
        self.batches = batches
        self.every = every
        self.bar = tqdm(
            total=epochs * batches,
            initial=done * batches,
            unit="step",
            mininterval=1,
            desc=title,
            dynamic_ncols=True,
        )
        self.started = time.monotonic()
        self.step_seconds: list[float] = []
        self.sums: dict[str, float] = defaultdict(float)  # over the epoch's steps

    @property
    def seconds(self) -> float:
        """Seconds since the training was started or resumed."""
        return time.monotonic() - self.started

    def take_step(self, step: Step) -> None:
        """Takes note of a step."""
        epoch = step.epoch + 1
        batch = step.batch + 1
        self.step_seconds.append(step.seconds)
        if batch == 1:
            self.sums.clear()
        for name, value in step.figures.items():
            self.sums[name] += value
        if batch % self.every == 0 or batch == self.batches:
            means = {name: total / batch for name, total in self.sums.items()}
            steps = (self.epochs - step.epoch) * self.batches - batch
            left = self.seconds / len(self.step_seconds) * steps
            place = {"epoch": epoch, "epochs": self.epochs, "batch": batch, "batches": self.batches}
            write_metrics(self.folder, {**place, **means, "lr": step.lr, "eta": round(left, 1)})
            # within an epoch the loss alone: all values stand in metrics.jsonl
            shown = means if batch == self.batches else {"loss": means["loss"]}
            words = " ".join(f"{name} {value:.4f}" for name, value in shown.items())
            log.info(
                f"epoch [{epoch}/{self.epochs}] batch [{batch}/{self.batches}] {words} "
                f"lr {step.lr:.4e} eta {left:.0f} s"
            )
        self.bar.update()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()  # an error's message starts on a line of its own

    def close(self) -> None:
        self.bar.close()
