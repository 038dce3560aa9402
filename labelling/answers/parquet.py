"""Tables in the format Parquet, for numbers of rows that no CSV file should have; with pyarrow."""

import os
from collections.abc import Iterable, Mapping
from itertools import islice

from trainers.common.console import printable
from trainers.common.errors import UserError
from trainers.common.files import check_output, write_atomically

ROWS = 10_000  # that are in memory, and in a row group
FIRST = ["image", "label", "doubtful", "uncertainty"]  # columns of every table


def check_parquet(path: str) -> None:
    """
    Raises:
        UserError: there is no pyarrow, or the file is there and is no table of this command; see
            ``check_output``.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_schema
    except ModuleNotFoundError as error:
        raise UserError(
            "--parquet needs pyarrow: pip install pyarrow, or give --csv for a table in text"
        ) from error
    check_output("--parquet", path, "PAR1")
    if not os.path.exists(path):
        return
    try:
        names = read_schema(path).names
    except ArrowException:
        names = []
    if names[: len(FIRST)] != FIRST:
        raise UserError(
            f"--parquet {path} exists already, and was not written by this command: give another name, or delete it first"
        )


def write_parquet(path: str, table: Iterable[Mapping[str, object]]) -> None:
    """Writes at least one row of columns, see ``rows.in_columns``; numbers in fp32, as they were
    computed."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    rows = iter(table)
    part = list(islice(rows, ROWS))
    types = {"doubtful": pyarrow.bool_(), "image": pyarrow.string(), "label": pyarrow.string()}
    schema = pyarrow.schema(
        [
            (
                name,
                types.get(name, pyarrow.string() if isinstance(value, str) else pyarrow.float32()),
            )
            for name, value in part[0].items()
        ]
    )

    def write(temporary: str) -> None:
        nonlocal part
        with ParquetWriter(temporary, schema, compression="zstd") as writer:
            while part:
                # an image's name may hold bytes that are no text
                shown = [{**row, "image": printable(str(row["image"]))} for row in part]
                writer.write_table(pyarrow.Table.from_pylist(shown, schema))
                part = list(islice(rows, ROWS))

    write_atomically(path, write)
