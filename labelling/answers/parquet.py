"""Tables in the format Parquet, for numbers of rows that no CSV file should have; with pyarrow."""

import os
from collections.abc import Iterator
from itertools import islice

from trainers.common.console import printable
from trainers.common.errors import UserError
from trainers.common.files import write_atomically

from .writers import TableWriter

ROWS = 10_000  # that are in memory, and in a row group
FIRST_COLUMNS = ["image", "label", "doubtful", "uncertainty"]  # columns of every table


class ParquetWriter(TableWriter):
    """Writes a Parquet file; numbers in fp32, as they were computed."""

    option = "--parquet"
    mark = "PAR1"

    def check(self) -> None:
        """Check that pyarrow is installed and that the file is not somebody's.

        Raises:
            UserError: pyarrow is not installed, or the file is there and not a table of this command; see
                ``check_output``.
        """
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import read_schema
        except ModuleNotFoundError as error:
            raise UserError(
                "--parquet needs pyarrow: pip install pyarrow, or give --csv for a table in text"
            ) from error
        super().check()
        if not os.path.exists(self.path):
            return
        try:
            names = read_schema(self.path).names
        except ArrowException:
            names = []
        if names[: len(FIRST_COLUMNS)] != FIRST_COLUMNS:
            raise UserError(
                f"--parquet {self.path} exists already, and was not written by this command: give another name, or delete it first"
            )

    def write(self, rows: Iterator[dict[str, object]], model: str) -> None:
        write_atomically(os.path.abspath(self.path), lambda path: write_table(path, rows))


def write_table(path: str, rows: Iterator[dict[str, object]]) -> None:
    """Writes at least one row, ``ROWS`` at a time."""
    import pyarrow
    from pyarrow import parquet

    part = list(islice(rows, ROWS))
    types = {"doubtful": pyarrow.bool_(), "image": pyarrow.string(), "label": pyarrow.string()}
    fields = []
    for name, value in part[0].items():
        of_value = pyarrow.string() if isinstance(value, str) else pyarrow.float32()
        fields.append((name, types.get(name, of_value)))
    schema = pyarrow.schema(fields)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while part:
            # an image's name may hold bytes that are not text
            shown = [{**row, "image": printable(str(row["image"]))} for row in part]
            writer.write_table(pyarrow.Table.from_pylist(shown, schema))
            part = list(islice(rows, ROWS))
