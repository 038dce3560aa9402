"""The folder of a run while it is made."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..common.errors import UserError
from ..common.files import check_folder, mark_folder, remove_leftovers
from ..common.locks import LOCK_FILE as LOCK
from ..common.locks import only_writer
from ..common.metrics import METRICS_FILE as METRICS
from ..common.record_file import OWNER, PICTURES, RECORD_FILE, answers_file

LOG = "log.txt"
OF_TRAINING = answers_file("train")  # out of fold
FILES_OF_RUN = (  # of a run's files
    LOG,
    METRICS,
    OF_TRAINING,
    answers_file("val"),
    answers_file("test"),
    PICTURES,
    RECORD_FILE,
    LOCK,
)


@contextlib.contextmanager
def folder_of_run(name: str, folder: str, further: Sequence[str] = ()) -> Iterator[None]:
    """Makes the folder of a run, if it is not there, and locks it to the end of the block.

    Args:
        name: the option that gives it, for messages.
        further: names of files that the run may write besides ``FILES_OF_RUN``.

    Raises:
        UserError: it can't be written to, another process does, or it holds files of a run's names
            that no run has written; of one that is raised in the block a new folder is removed again, if it holds nothing but the log.
    """
    check_folder(name, folder, OWNER, [*FILES_OF_RUN, *further])
    place = Path(folder).absolute()
    made = [path for path in (place, *place.parents) if not path.exists()]
    try:
        with only_writer(folder):
            remove_leftovers(folder)
            mark_folder(folder, OWNER)
            yield
    except UserError:
        # up to the first that another run, beside this one, has put its own folder in
        with contextlib.suppress(OSError):
            left = {OWNER, LOG, OF_TRAINING}
            if made and {*os.listdir(place)} <= left:
                for name in sorted(left):
                    (place / name).unlink(missing_ok=True)
                for path in made:
                    path.rmdir()
        raise
