"""Files of a model on the Hugging Face hub or in a folder, as open_clip and timm name both."""

import contextlib
import os
from collections.abc import Sequence

from ...common.errors import UserError, raise_machines
from ...common.hub import download, path_in_cache

HUB_PREFIX = "hf-hub:"  # as open_clip and timm write it
FOLDER_PREFIX = "local-dir:"


def fetch(name: str, repository: str, files: Sequence[str], revision: str = "main") -> str:
    """The path of the first of some files that a repository on the hub has: in the cache, or
    downloaded.

    Raises:
        UserError: none of them can be had.
    """
    try:
        return first_of(repository, files, revision)
    except Exception as error:  # of the hub, of the network, or of a name that is none
        raise_machines(error, repository)
        raise UserError(
            f"{name} needs {' or '.join(files)} of the repository {repository}, which can't be had from the hub "
            f"({short(error)}): check its name; without a network run hf download {repository} --local-dir FOLDER "
            f"where there is one, and give {name.partition(':')[0]}:{FOLDER_PREFIX}FOLDER"
        ) from error


def first_of(repository: str, files: Sequence[str], revision: str = "main") -> str:
    """The path of the first of some files that a repository on the hub has: in the cache, or
    downloaded.

    Raises:
        Exception: whatever the hub and its client raise for the last of them.
    """
    for file in files:
        if path := path_in_cache(repository, file, revision):
            return path
    for file in files[:-1]:
        with contextlib.suppress(FileNotFoundError):  # the hub has another of them
            return download(repository, file, revision)
    return download(repository, files[-1], revision)


def in_folder(name: str, folder: str, files: Sequence[str]) -> str:
    """The path of the first of some files that a folder has.

    Raises:
        UserError: it has none of them.
    """
    for file in files:
        if os.path.isfile(f"{folder}/{file}"):
            return f"{folder}/{file}"
    package = name.partition(":")[0]
    raise UserError(
        f"MODEL.BACKBONE.NAME is {package}:{FOLDER_PREFIX}{folder}, and {folder} has no {', '.join(files)}: give a "
        f"folder as {package} saves it (one that transformers saved is given as its path alone)"
    )


def short(error: Exception) -> str:
    """The beginning of an error's message in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
