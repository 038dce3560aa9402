"""The answers of a command that is not done yet: a file beside the table that will be, from which the
same command goes on after it was killed."""

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

import numpy

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.files import check_output
from trainers.common.image_files import state_of

ENDING = ".part"
MARK = "CDCp"
AT = 68  # where SQLite's head has the number of the program that a file belongs to
# The log that SQLite writes ahead is never half a transaction, also where the power fails, and needs
# no waiting for the disk. One process has the file at a time.
PREPARE = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA application_id = {};
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
"""
TABLES = (
    "CREATE TABLE command (text TEXT)",
    "CREATE TABLE images (position INTEGER PRIMARY KEY, path BLOB, size INTEGER, changed INTEGER)",
    "CREATE TABLE answers (position INTEGER PRIMARY KEY, row TEXT, uncertainty REAL, "
    "unfamiliar REAL, doubtful INTEGER, error TEXT)",
)


@contextlib.contextmanager
def part_file(
    table: str, command: Mapping[str, object], paths: Iterable[str]
) -> Iterator["PartFile"]:
    """The part file of a command, to the end of the block: a new one, or the one that a killed process
    has left.

    It is deleted where the block ends as it should, and where nothing was answered.

    Args:
        table: path of the file that will be written; "" has a part file without a name, which goes
            with the process.
        command: what the answers depend on besides the images: name for the user → value.
        paths: of the images.

    Raises:
        UserError: it is somebody's, of another command or other images, in use, or damaged.
        OSError: the disk is full or fails.
    """
    path = os.path.abspath(table) + ENDING if table else ""
    if path:
        if not is_empty(path):
            check_output("the part file", path, MARK, at=AT)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # SQLite does not say why it can't make a file, and makes one where a link leads
        flags = os.O_CREAT | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(path, flags, 0o666))
    is_over = False
    with contextlib.ExitStack() as stack:
        try:
            # transactions are begun and ended by ``PartFile.transaction`` alone
            database = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            stack.callback(database.close)
            part = PartFile(database, path)
            try:
                part.begin(command, paths)
                yield part
            except BaseException:
                is_over = not part.has_answers()
                raise
            is_over = True
        except sqlite3.Error as error:
            raise as_users(error, path) from error
        finally:
            stack.close()
            if path and is_over:
                os.remove(path)


def is_empty(path: str) -> bool:
    """Whether a path is a file without a byte, as a process leaves it that is killed while it makes one."""
    return os.path.isfile(path) and not os.path.islink(path) and not os.path.getsize(path)


def as_users(error: sqlite3.Error, path: str) -> Exception:
    """Turns SQLite's errors into messages for the user."""
    if "locked" in str(error):
        return UserError(f"{path} is being written by another process: wait for its end, or end it")
    if isinstance(error, sqlite3.OperationalError):  # the disk's
        return OSError(0, str(error), path or "the temporary folder")
    return UserError(f"{path} can't be read ({error}): delete it, and give the same command again")


class PartFile:
    """Images by their positions, from 0, and the answers to some of them (``part_file``).

    One thread may ``add`` answers while another asks what is ``missing``.
    """

    def __init__(self, database: sqlite3.Connection, path: str) -> None:
        self.database = database
        self.path = path
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Writes all of a block or nothing."""
        self.database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def begin(self, command: Mapping[str, object], paths: Iterable[str]) -> None:
        """Writes the command and its images down, or compares them with the file's.

        Raises:
            UserError: they differ.
        """
        self.database.executescript(PREPARE.format(int.from_bytes(MARK.encode(), "big")))
        if self.is_begun():
            self.compare(command, paths)
            return
        with self.transaction():
            for table in TABLES:
                self.database.execute(table)
            self.database.execute("INSERT INTO command VALUES (?)", [json.dumps(command)])
            self.database.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?)",
                # names may hold any bytes
                ((place, os.fsencode(path), *state_of(path)) for place, path in enumerate(paths)),
            )

    def compare(self, command: Mapping[str, object], paths: Iterable[str]) -> None:
        """Check that the file belongs to this command.

        Raises:
            UserError: the file was begun by another command, or for other images, or one of these
                has changed.
        """
        (text,) = self.database.execute("SELECT text FROM command").fetchone()
        begun = json.loads(text)
        given = json.loads(json.dumps(command))
        other = [name for name in given | begun if given.get(name) != begun.get(name)]
        given_images = ((path, *state_of(path)) for path in paths)
        if not other and any(mine != its for mine, its in zip_longest(given_images, self.known())):
            other.append("images")
        if other:
            raise UserError(
                f"{self.path} holds the answers of a command that was stopped, with other {', '.join(other)}: "
                "give that command again, or delete the file to begin anew"
            )

    def known(self) -> Iterator[tuple[str, int, int]]:
        """Path and ``state_of`` of all images in their order, as they were when the command began."""
        query = "SELECT path, size, changed FROM images ORDER BY position"
        for path, size, changed in self.database.execute(query):
            yield os.fsdecode(path), size, changed

    def images(self) -> Iterator[str]:
        """Paths of all images in their order."""
        for path, *_ in self.known():
            yield path

    def counts(self) -> tuple[int, int, int]:
        """Counts the images, those with an answer, and those that can't be read."""
        (images,) = self.database.execute("SELECT count(*) FROM images").fetchone()
        rows, errors = self.database.execute(
            "SELECT count(row), count(error) FROM answers"
        ).fetchone()
        return images, rows, errors

    def check_whole(self) -> None:
        """Checks that every image has an answer, or can't be read.

        Raises:
            UserError: there are more or fewer answers.
        """
        images, rows, errors = self.counts()
        if rows + errors != images:
            raise UserError(
                f"{self.path} has {counted(rows + errors, 'answer')} to {counted(images, 'image')}: delete it, "
                "and give the same command again"
            )

    def has_answers(self) -> bool:
        """Whether there is an answer to any image."""
        if not self.is_begun():
            return False
        query = "SELECT 1 FROM answers WHERE row IS NOT NULL"
        return self.database.execute(query).fetchone() is not None

    def is_begun(self) -> bool:
        """Whether all images are written down."""
        return self.database.execute("SELECT 1 FROM sqlite_master").fetchone() is not None

    def missing(self, size: int) -> Iterator[list[tuple[int, str]]]:
        """Positions and paths of the images without an answer, batch by batch.

        Args:
            size: of a batch; batches are those of all images, so that what an image is answered
                with, to the last digit, does not depend on where a process was killed. A batch that
                lacks an answer is answered anew.
        """
        images, _, _ = self.counts()
        for start in range(0, images, size):
            ends = start, start + size
            where = "WHERE position >= ? AND position < ?"
            query = f"SELECT count(*) FROM answers {where}"
            with self.lock:
                (answered,) = self.database.execute(query, ends).fetchone()
                if answered == min(size, images - start):
                    continue
                query = f"SELECT position, path FROM images {where} ORDER BY position"
                batch = self.database.execute(query, ends).fetchall()
            yield [(position, os.fsdecode(path)) for position, path in batch]

    def add(self, rows: Mapping[int, Mapping[str, object]], errors: Mapping[int, str]) -> None:
        """Writes the answers to whole batches.

        Args:
            rows: position → what the table will say, with ``uncertainty``, ``doubtful`` and, where that is
                known, ``unfamiliar``.
            errors: position → why the image can't be read.
        """
        lines: list[Sequence[object]] = []
        for position, row in rows.items():
            numbers = row["uncertainty"], row.get("unfamiliar"), row["doubtful"]
            lines.append((position, json.dumps(row), *numbers, None))
        lines += [(position, None, None, None, None, error) for position, error in errors.items()]
        with self.transaction():
            self.database.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", lines
            )

    def rows(self, least_certain_first: bool) -> Iterator[dict[str, object]]:
        """The answers in the order of the images, or the most uncertain ones first, read one by one."""
        order = "position"
        if least_certain_first:  # SQLite sorts what does not fit into its memory in a file
            self.database.execute(
                "CREATE INDEX IF NOT EXISTS by_uncertainty ON answers (uncertainty DESC, position)"
            )
            order = "uncertainty DESC, position"
        query = f"SELECT row FROM answers WHERE row IS NOT NULL ORDER BY {order}"
        for (row,) in self.database.execute(query):
            yield json.loads(row)

    def rows_at(self, positions: Iterable[int]) -> Iterator[dict[str, object]]:
        """The answers to the images at some positions, in this order."""
        query = "SELECT row FROM answers WHERE position = ?"
        for position in positions:
            (row,) = self.database.execute(query, [position]).fetchone()
            yield json.loads(row)

    def answered(self) -> Iterator[tuple[int, str, dict[str, object]]]:
        """Position, path and answer of each image that has one, in their order, read one by one."""
        query = (
            "SELECT position, path, row FROM images JOIN answers USING (position) "
            "WHERE row IS NOT NULL ORDER BY position"
        )
        for position, path, row in self.database.execute(query):
            yield position, os.fsdecode(path), json.loads(row)

    def errors(self, number: int) -> list[str]:
        """Reasons why images can't be read, of the first ``number`` of these."""
        query = "SELECT error FROM answers WHERE error IS NOT NULL ORDER BY position LIMIT ?"
        return [error for (error,) in self.database.execute(query, [number])]

    def numbers(self) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        """Return the uncertainties (N,) of the answers, and how unfamiliar their pictures are (N,); None where
        nothing says it."""
        query = (
            "SELECT uncertainty, unfamiliar FROM answers WHERE row IS NOT NULL ORDER BY position"
        )
        found = numpy.array(self.database.execute(query).fetchall(), dtype=float)  # (N, 2)
        uncertainty, unfamiliar = found.T
        return uncertainty, None if numpy.isnan(unfamiliar).any() else unfamiliar

    def rejected(self) -> int | None:
        """Number of answers without a label; None where nothing asks for such."""
        (number,) = self.database.execute("SELECT sum(doubtful) FROM answers").fetchone()
        return None if number is None else int(number)
