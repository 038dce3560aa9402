"""The folder of a run while it is made."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..common.errors import UserError
from ..common.files import check_folder, remove_leftovers
from ..common.locks import FILE_NAME as LOCK
from ..common.locks import only_writer
from ..common.record_file import answers_file

LOG = "log.txt"
CHOICE = "candidates.json"  # what the trainer was chosen from
OF_TRAINING = answers_file("train")  # out of fold
OUTPUTS = (
    LOG,
    CHOICE,
    OF_TRAINING,
    "metrics.jsonl",
    "results.json",
    answers_file("val"),
    answers_file("test"),
    LOCK,
)


@contextlib.contextmanager
def folder_of_run(name: str, folder: str) -> Iterator[None]:
    """Makes the folder of a run, if it is not there, and locks it to the end of the block.

    name: what the user gives it by, for messages.

    Raises:
        UserError: it can't be written to, or another process does; of one that is raised in the
            block a new folder is removed again, if it holds nothing but the log and the choice.
    """
    check_folder(name, folder, OUTPUTS)
    place = Path(folder).absolute()
    made = [path for path in (place, *place.parents) if not path.exists()]
    try:
        with only_writer(folder):
            remove_leftovers(folder)
            yield
    except UserError:
        # up to the first that another run, beside this one, has put its own folder in
        with contextlib.suppress(OSError):
            left = {LOG, CHOICE, OF_TRAINING}
            if made and {*os.listdir(place)} <= left:
                for name in sorted(left):
                    (place / name).unlink(missing_ok=True)
                for path in made:
                    path.rmdir()
        raise
