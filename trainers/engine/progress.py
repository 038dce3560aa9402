"""How a training gets on: its bar, its lines in ``metrics.jsonl`` and the log, and what its steps
take."""

import logging
import time
from collections import defaultdict

from tqdm import tqdm

from ..common.metrics import write_metrics

log = logging.getLogger(__name__)


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
        """Since it started."""
        return time.monotonic() - self.started

    def note(
        self, epoch: int, batch: int, figures: dict[str, float], lr: float, took: float
    ) -> None:
        """Takes note of a step; epoch and batch are counted from 0, ``took`` is in seconds."""
        self.step_seconds.append(took)
        if batch == 0:
            self.sums.clear()
        for name, value in figures.items():
            self.sums[name] += value
        if (batch + 1) % self.every == 0 or batch + 1 == self.batches:
            means = {name: total / (batch + 1) for name, total in self.sums.items()}
            steps = (self.epochs - epoch) * self.batches - batch - 1
            left = self.seconds / len(self.step_seconds) * steps
            place = {"epoch": epoch + 1, "epochs": self.epochs}
            place |= {"batch": batch + 1, "batches": self.batches}
            write_metrics(self.folder, {**place, **means, "lr": lr, "eta": round(left, 1)})
            shown = " ".join(f"{name} {value:.4f}" for name, value in means.items())
            log.info(
                f"epoch [{epoch + 1}/{self.epochs}] batch [{batch + 1}/{self.batches}] {shown} "
                f"lr {lr:.4e} eta {left:.0f} s"
            )
        self.bar.update()

    def close(self) -> None:
        self.bar.close()
