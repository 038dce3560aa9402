"""Files of repositories on the Hugging Face hub: in the cache of its client, or downloaded to it.

HF_ENDPOINT may name any server, and the client's own downloads join a text of that server (the
ETag) to a path that they write to. Here every path is made of names of ours, so nothing outside of
the cache is read, written or removed.
"""

import io
import os
import re
from collections.abc import Callable, Iterable

from .errors import UserError
from .files import remove_leftovers, write_atomically, write_text
from .locks import turn

COMMIT = re.compile("[0-9a-f]{40}")


def path_in_cache(repository: str, file: str, revision: str = "main") -> str:
    """Path of a file of a repository in the cache; empty where the cache lacks it, or has a link
    there that leads out of the cache.

    Args:
        revision: a branch, or a commit.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        path = try_to_load_from_cache(repository, file, revision=revision)
    except ValueError:  # not a repository's name
        return ""
    if not isinstance(path, str):
        return ""
    # newer clients share files between repositories, elsewhere in the cache
    homes = (folder_of(repository), constants.HF_HUB_CACHE)
    is_inside = any(is_below(os.path.realpath(path), os.path.realpath(home)) for home in homes)
    return path if is_inside else ""


def download(
    repository: str,
    file: str,
    revision: str = "main",
    check: Callable[[str], object] | None = None,
) -> str:
    """Download a file of a repository to the cache and return its path there.

    Args:
        revision: a branch, or a commit.
        check: takes the path of the download before it gets its name, and raises if something is wrong.

    Raises:
        UserError: the server names a commit that is none, or sends more bytes than it stated.
        Exception: whatever the hub, its client and ``check`` raise. The file is not there then.
    """
    from huggingface_hub import HfApi, HfFileSystem

    commit = revision
    if not COMMIT.fullmatch(revision):
        commit = str(HfApi().model_info(repository, revision=revision).sha)
    if not COMMIT.fullmatch(commit):
        raise UserError(f"the hub says that {repository} is at {commit!r}, which is no commit")
    snapshot = os.path.join(folder_of(repository), "snapshots", commit)
    path = os.path.join(snapshot, file)
    if not is_below(os.path.abspath(path), os.path.abspath(snapshot)):
        raise UserError(f"{file!r} leads out of the repository {repository}")

    def write(temporary: str) -> None:
        files = HfFileSystem(skip_instance_cache=True)
        place = f"{repository}@{commit}/{file}"
        with Bounded(temporary, int(files.info(place)["size"])) as target:
            files.get_file(place, outfile=target)
        if check is not None:
            check(temporary)

    with turn(f"{file} of {repository} is downloaded", snapshot):
        if check is None and (there := path_in_cache(repository, file, commit)):
            return there  # another process has downloaded it meanwhile
        remove_leftovers(snapshot)
        write_atomically(path, write)
    if commit != revision:
        write_text(os.path.join(folder_of(repository), "refs", revision), commit)
    return path


def download_those(repository: str, names: Iterable[str], last: str) -> str:
    """Download the files of some names that a repository has, and return their folder in the cache.

    Args:
        names: of files; last: the one of them that is downloaded last. Where the cache has it, the
            others are there, too, and no server is asked.

    Raises:
        Exception: as ``download`` raises, or the repository has none of the names.
    """
    from huggingface_hub import HfApi

    if path := path_in_cache(repository, last):
        return os.path.dirname(path)
    has = {*HfApi().list_repo_files(repository)} & {*names}
    if not has:
        raise FileNotFoundError(f"{repository} has none of {', '.join(names)}")
    commit = "main"
    for file in sorted(has, key=lambda name: (name == last, name)):
        path = path_in_cache(repository, file, commit) or download(repository, file, commit)
        commit = os.path.basename(os.path.dirname(path))
    return os.path.dirname(path)


def origin(path: str) -> str:
    """Return the repository and the commit of a file in the cache, ``owner/name@commit``; empty for
    a file elsewhere."""
    from huggingface_hub import constants

    if not is_below(path, constants.HF_HUB_CACHE):
        return ""
    folder, _, rest = os.path.relpath(path, constants.HF_HUB_CACHE).partition("/snapshots/")
    repository = folder.removeprefix("models--").replace("--", "/")
    return f"{repository}@{rest.partition('/')[0]}"


class Bounded(io.BufferedWriter):
    """A new file that takes no more than a number of bytes.

    Args:
        path: of the file; size: the number of bytes.
    """

    def __init__(self, path: str, size: int) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.size = size

    def write(self, data: bytes) -> int:  # type: ignore[override]  # as the client writes
        if self.tell() + len(data) > self.size:
            raise UserError(f"the hub sends more than the {self.size:,} bytes that it stated")
        return super().write(data)


def folder_of(repository: str) -> str:
    """The folder of a repository in the cache, as the hub's client names it."""
    from huggingface_hub import constants

    return os.path.join(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder; both absolute."""
    return path.startswith(os.path.join(folder, ""))
