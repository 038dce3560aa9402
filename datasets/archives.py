"""Unpacks archives that come from somewhere else: plain files below one folder, of bounded size."""

import contextlib
import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple, cast

from trainers.common.errors import UserError, raise_machines
from trainers.common.readers import UNPACKED

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_ENTRIES = (
    300_000  # files and folders; the largest archive of the field, SUN397's, has 109,000 images
)
LONGEST_MEMBER = 1000  # characters; a system takes 4,096 bytes, with the folder
LONGEST_READ = 2**20  # bytes; tarfile reads a header, which may hold a name of any length, at once
# errors of the readers of archives on damaged ones
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
)


class Member(NamedTuple):
    """A file in an archive: its name, its size in bytes, and the function that opens it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_ENDINGS)


@contextlib.contextmanager
def blaming(path: str) -> Iterator[None]:
    """Blame the archive for a reader's errors in the block.

    Raises:
        UserError: it is damaged; OSError: the disk is full, or fails.
    """
    try:
        yield
    except UserError:
        raise
    except DAMAGED as error:
        raise_machines(error, path)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} can't be unpacked ({reason}): delete it and get it again"
        ) from error


def members(path: str) -> Iterator[Member]:
    """The files of an archive in its order; folders are left out.

    Raises:
        UserError: it holds a link, a device, a name that leads out of it or is longer than
            ``LONGEST_MEMBER``, or more than ``MOST_ENTRIES``.
    """
    if path.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            check_number(path, len(archive.infolist()))
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise refusal(path, info.filename, "is a link or a device")
                if not info.is_dir():
                    yield check_member(
                        path, Member(info.filename, info.file_size, lambda: archive.open(info))
                    )
        return
    with open(path, "rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    opened = cast(IO[bytes], gzip.open(path)) if is_compressed else open(path, "rb")
    with opened:
        stream: Any = Stream(opened, limit(path))
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            yield from members_of_tar(path, tar)


class Stream:
    """The bytes of a tar archive, read in pieces of a bounded size, and no more than a number of
    them, as a file for tarfile."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file = file
        self.most = most
        self.tell = file.tell
        self.seek = file.seek
        self.seekable = file.seekable

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            TarError: they are more than ``LONGEST_READ``, or the archive has more than it may have.
        """
        if size > LONGEST_READ:
            raise tarfile.ReadError(f"a header has {size:,} bytes")
        if self.tell() > self.most:
            raise tarfile.ReadError(f"it unpacks to more than {self.most:,} bytes")
        return self.file.read(size)


def members_of_tar(path: str, tar: tarfile.TarFile) -> Iterator[Member]:
    """The files of an open tar archive; path: for messages.

    Raises:
        UserError: as ``members``.
    """
    for number, info in enumerate(tar, 1):
        check_number(path, number)
        if not (info.isdir() or info.isreg()):
            raise refusal(path, info.name, "is a link or a device")
        if info.isreg():
            yield check_member(
                path,
                Member(info.name, info.size, lambda: cast(IO[bytes], tar.extractfile(info))),
            )


def limit(path: str) -> int:
    """The number of bytes that an archive may unpack to."""
    return max(UNPACKED, 2 * os.path.getsize(path))


def check_number(path: str, number: int) -> None:
    """Refuse an archive of more than ``MOST_ENTRIES``.

    Raises:
        UserError: it has more.
    """
    if number > MOST_ENTRIES:
        raise UserError(
            f"{path} is refused: it has more than {MOST_ENTRIES:,} files and folders, which no data set has; get it again"
        )


def check_member(path: str, member: Member) -> Member:
    """Return a member whose name stays below the folder that the archive is unpacked to, on any system.

    Raises:
        UserError: it doesn't, or is longer than ``LONGEST_MEMBER``.
    """
    if len(member.name) > LONGEST_MEMBER:
        raise refusal(path, f"{member.name[:40]}…", f"has a name of {len(member.name)} characters")
    parts = re.split(r"[/\\]", member.name)
    if os.pardir in parts or not parts[0] or ":" in parts[0] or "\0" in member.name:
        raise refusal(path, member.name, "leads out of it")
    return member


def refusal(path: str, name: str, why: str) -> UserError:
    return UserError(
        f"{path} is refused: its entry {name} {why}, which no data set needs; get it again"
    )


def unpack(path: str, folder: str) -> None:
    """Writes the files of an archive below a new folder.

    Raises:
        UserError: the archive is damaged, unpacks to more than its ``limit``, or as ``members``.
        OSError: the disk is full, or fails.
    """
    left = limit(path)
    os.makedirs(folder)
    with blaming(path):
        for member in members(path):
            left -= member.size
            if left < 0:
                raise refusal(path, member.name, "makes it unpack to more than twice its size")
            place = os.path.join(folder, member.name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            try:
                with member.open() as source, open(place, "xb") as target:
                    shutil.copyfileobj(source, target)
            except OSError as error:
                error.filename = place  # a full disk names no file
                raise
