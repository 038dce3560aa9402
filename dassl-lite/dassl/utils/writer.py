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
        written = open(path, "rb").read() if os.path.exists(path) else b""
        is_new = not written
        self._file = open(path, "a", newline="", encoding="utf-8", buffering=1)
        if written and not written.endswith(
            b"\n"
        ):  # a run that was stopped in the middle of a line
            self._file.write("\n")
        self._rows = csv.writer(self._file)
        if is_new:
            self._rows.writerow(["wall_time", "step", "tag", "value"])

    def add_scalar(self, tag: str, value: float, global_step: int | None = None) -> None:
        step = "" if global_step is None else int(global_step)
        self._rows.writerow([f"{time.time():.3f}", step, tag, repr(float(value))])

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class SummaryWriter:
    """Stands for TensorBoard's class of this name, imported at first use (it is slow to import and optional)."""

    def __init__(self, log_dir: str | None = None, **kwargs: Any) -> None:
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter as TensorBoardWriter

            self._writer: Any = TensorBoardWriter(log_dir=log_dir, **kwargs)
        else:
            self._writer = CSVWriter(log_dir or "runs")

    def __getattr__(self, name: str) -> Any:
        if name == "_writer":  # not there yet
            raise AttributeError(name)
        return getattr(self._writer, name)
