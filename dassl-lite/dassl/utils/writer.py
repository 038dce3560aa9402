"""A writer of scalars: TensorBoard's where it is installed, else a CSV file in the same folder."""

import csv
import importlib.util
import os
import time
from typing import Any


class CSVWriter:
    """Appends `wall_time,step,tag,value` lines to `log_dir/scalars.csv`."""

    def __init__(self, log_dir: str) -> None:
        os.makedirs(log_dir, exist_ok=True)
        path = os.path.join(log_dir, "scalars.csv")
        self._file = open(path, "a", newline="", encoding="utf-8", buffering=1)
        self._rows = csv.writer(self._file)
        if self._file.tell() == 0:
            self._rows.writerow(["wall_time", "step", "tag", "value"])
        self.flush, self.close = self._file.flush, self._file.close

    def add_scalar(self, tag: str, value: float, global_step: int | None = None) -> None:
        step = "" if global_step is None else int(global_step)
        self._rows.writerow([f"{time.time():.3f}", step, tag, repr(float(value))])


def SummaryWriter(log_dir: str = "runs", **kwargs: Any) -> Any:
    """Stands for TensorBoard's class of this name, imported at first use (it is slow to import and optional)."""
    if importlib.util.find_spec("tensorboard") is None:
        return CSVWriter(log_dir)
    from torch.utils.tensorboard import SummaryWriter as TensorBoardWriter

    return TensorBoardWriter(log_dir=log_dir, **kwargs)
