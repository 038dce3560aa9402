"""How a training gets on: its bar, its lines in ``metrics.jsonl``, and what its steps take."""

import time
from typing import Any

from dassl.utils import MetricMeter
from tqdm import tqdm

from ..common.metrics import write_metrics


class Progress:
    """Follows a training from step to step.

    Args:
        folder: of the run; title: shown beside the bar.
        epochs, batches: of the whole training, and of an epoch; done: epochs done before.
        every: batches a line in ``metrics.jsonl``.

    Attributes:
        step_seconds: of each step, without waiting for its batch.
    """

    def __init__(
        self, folder: str, title: str, epochs: int, batches: int, done: int, every: int
    ) -> None:
        self.folder, self.epochs, self.batches, self.every = folder, epochs, batches, every
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
        self.means = MetricMeter()

    @property
    def seconds(self) -> float:
        """Since it started."""
        return time.monotonic() - self.started

    def note(self, epoch: int, batch: int, figures: dict[str, Any], lr: float, took: float) -> None:
        """Takes note of a step; epoch and batch are counted from 0, ``took`` is in seconds."""
        self.step_seconds.append(took)
        if batch == 0:
            self.means = MetricMeter()
        self.means.update(figures)
        if (batch + 1) % self.every == 0 or batch + 1 == self.batches:
            left = (self.epochs - epoch) * self.batches - batch - 1
            line = {
                "epoch": epoch + 1,
                "epochs": self.epochs,
                "batch": batch + 1,
                "batches": self.batches,
                **{name: meter.avg for name, meter in self.means.meters.items()},
                "lr": lr,
                "eta": round(self.seconds / len(self.step_seconds) * left, 1),
            }
            write_metrics(self.folder, line)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()
