"""Gets data sets and lays them out as CoOp's users know them.

    python -m datasets.get dtd eurosat --root data
    python -m datasets.get all --root data --plan
    python -m datasets.get imagenet --root data --from ~/Downloads

Archives come from a mirror on the Hugging Face hub (``all``: its 14 sets), or from the folder that
--from names, as for ImageNet, which has to be downloaded by hand: its tars and a flat folder of
validation images are sorted into class folders. grocery_store, cifar10 and pacs are cloned. Complete
sets are not touched, incomplete ones are completed, and the same command goes on after it
was ended. At the end each set has a line of ``python -m datasets.check``. HF_ENDPOINT names another
hub, HF_HOME the folder that keeps the archives.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from tabulate import tabulate

from datasets import check, ilsvrc
from datasets.archives import ARCHIVE_ENDINGS, is_archive, unpack
from datasets.base import ImageDataset
from datasets.every import data_set
from datasets.imagenet import CLASSNAMES_FILE
from datasets.sources import MIRROR, REVISION, SOURCES, Source
from trainers.common.console import first_few
from trainers.common.errors import UserError, nearest, raise_machines, run_tool
from trainers.common.files import UNFINISHED, file_hash
from trainers.common.hub import download, path_in_cache
from trainers.common.locks import only_writer
from trainers.data.class_folders import class_folders
from trainers.data.fewshot import SAMPLES_FOLDER as SAMPLES

log = logging.getLogger("get")

ALL_SETS = "all"
MIRRORED = [name for name, source in SOURCES.items() if source.archives]
# folders of data sets that need CoOp's class names of ImageNet, and so may have them
NAMED_BY_COOP = [
    data_set(name).dataset_dir
    for source in SOURCES.values()
    for name in source.sets
    if CLASSNAMES_FILE in data_set(name).lists
]
WHERE_CLASSNAMES = "CoOp's DATASETS.md (KaiyangZhou/CoOp on GitHub) links it, under ImageNet; put it into FOLDER and give --from FOLDER"


# ---- sets that are there ----


def is_complete(name: str, root: str) -> bool:
    """Whether all images of a data set's own lists, or class folders, are there."""
    row = dict(zip(check.CHECK_HEADERS, check.check(data_set(name), root)))
    is_all_there = row["state"] in ("present", check.OTHER_SPLIT)
    return is_all_there or row[check.CHECK_HEADERS[-1]] == check.OTHER_SIZE


def is_the_fields(name: str, root: str) -> bool:
    """Whether a data set is the one that papers report of: its images are as many, by CoOp's split."""
    return check.check(data_set(name), root)[1] == "present"


def is_whole(name: str, root: str) -> bool:
    """Whether a data set needs no download: it is complete by its list of images or, without such a list,
    has as many as papers report."""
    cls = data_set(name)
    return is_complete(name, root) and (cls.lists_images or check.check(cls, root)[1] == "present")


def missing_of(names: Iterable[str], root: str) -> list[str]:
    """The names of ``SOURCES`` whose sets are not all complete."""
    missing = []
    for name in names:
        if not all(is_whole(each, root) for each in SOURCES[name].sets):
            missing.append(name)
    return missing


# ---- where archives come from ----


def key(file: str) -> str:
    """Return an archive's name without its ending, its case and its dashes."""
    stem = os.path.basename(file).lower()
    ending = next((end for end in ARCHIVE_ENDINGS if stem.endswith(end)), "")
    return re.sub(r"[^a-z0-9]", "", stem.removesuffix(ending))


def archive_of(source: Source, files: Iterable[str], place: str) -> str:
    """The one of several files that is a data set's archive.

    Raises:
        UserError: none is; place: where they are, for the message.
    """
    archives = sorted(filter(is_archive, files))
    for wanted in source.archives:
        for file in archives:
            if key(file) == key(wanted):
                return file
    raise UserError(
        f"{place} has no {' or '.join(source.archives)}, its archives are {first_few(archives) or 'none'}: put one of that "
        "name into a folder and give --from FOLDER"
    )


class Stated(NamedTuple):
    """The hub's statement on a file: bytes, and SHA-256 (64 hex digits; empty where it states none)."""

    size: int
    sha256: str


class Hub:
    """The mirror on the Hugging Face hub, as huggingface_hub shows it: HF_ENDPOINT, HF_HOME and
    HF_HUB_OFFLINE are its settings.

    Attributes:
        files: path → the hub's statement; empty where the hub is not reached.
    """

    def __init__(self) -> None:
        self.api = HfApi()
        self.files: dict[str, Stated] = {}
        self.failure = ""
        files = {}
        try:
            for file in self.api.list_repo_tree(MIRROR, recursive=True, revision=REVISION):
                if isinstance(file, RepoFile):
                    sha256 = file.lfs.sha256 if file.lfs is not None else None
                    files[str(file.path)] = Stated(int(file.size), str(sha256 or ""))
            self.files = files
        except Exception as error:  # whatever the hub and its client may raise
            raise_machines(error)
            self.failure = " ".join(str(error).split()) or type(error).__name__

    def archive(self, source: Source) -> str:
        """Name of a data set's archive; where the hub is not reached, the one that it had.

        Raises:
            UserError: the hub has none.
        """
        if self.failure:
            return source.archives[0]
        return archive_of(source, self.files, f"{self.api.endpoint}/{MIRROR}")

    def download(self, source: Source) -> str:
        """Path of a data set's archive in huggingface_hub's cache.

        Raises:
            UserError: the hub is not reached and the cache lacks it, or it is another file than the
                hub states.
        """
        name = self.archive(source)
        stated = self.files.get(name)

        def check(path: str) -> None:
            found = file_hash(path)
            if source.sha256 and found != source.sha256:
                raise UserError(
                    f"{name} is another file than the field's: its SHA-256 is {found[:16]}…, not {source.sha256[:16]}… "
                    "(datasets/get.yaml); it is not kept. Fetch it elsewhere and give the folder with it as --from"
                )
            if stated is not None and found != stated.sha256:
                expected = f"{stated.sha256[:16]}…" if stated.sha256 else "none"
                raise UserError(
                    f"{name} is damaged: its SHA-256 is {found[:16]}…, and the hub states {expected}; it is not kept, "
                    "give the same command again"
                )

        if path := path_in_cache(MIRROR, name, REVISION):
            try:
                check(path)
                return path
            except UserError:
                log.info("%s in the cache is damaged, it is downloaded again", name)
        try:
            return download(MIRROR, name, REVISION, check)
        except UserError:
            raise
        except Exception as error:  # whatever the hub and its client may raise
            raise_machines(error)
            why = self.failure or " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{name} can't be downloaded ({why}): give the same command again where there is a network, or fetch "
                f"{self.api.endpoint}/{MIRROR}/resolve/{REVISION}/{name} elsewhere and give the folder with it as --from"
            ) from error


# ---- from an archive to a data set's folder ----


def folders_in(folder: str) -> Iterator[str]:
    """Yield a folder and the folders below it, the upper ones first, without macOS' additions to archives."""
    level = [folder]
    while level:
        yield from level
        level = [
            entry.path
            for place in level
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name)
            if entry.is_dir() and entry.name != "__MACOSX"
        ]


def locate(cls: type[ImageDataset], unpacked: str) -> tuple[str, str]:
    """The folder with a data set's lists and the one of its images, wherever they are in the
    unpacked archive.

    Raises:
        UserError: its lists or its images are not in it, or the lists are malformed.
    """
    folders = [*folders_in(unpacked)]
    beside = unpacked
    if cls.lists_images:
        for beside in folders:
            if all(os.path.isfile(f"{beside}/{name}") for name in cls.lists):
                break
        else:
            raise unknown(f"no folder has {', '.join(cls.lists)}", unpacked)
        listed = os.path.join(beside, cls.image_dir)
        first = [part[0].impath for part in cls.list_images(beside) if part]
        wanted = [os.path.relpath(path, listed) for path in first]
        what = f"{wanted[0]} is in no folder"
    else:
        wanted = []
        what = "no folder has class folders"
    for folder in folders:
        is_there = all(os.path.isfile(f"{folder}/{path}") for path in wanted)
        has_classes = any(re.fullmatch(r"n?\d+", name) for name in class_folders(folder))
        if is_there and (wanted or has_classes):
            log.info("its images are in %s", os.path.relpath(folder, os.path.dirname(unpacked)))
            if not wanted and folder != unpacked:
                beside = os.path.dirname(folder)
            return beside, folder
    raise unknown(what, unpacked)


def unknown(what: str, unpacked: str) -> UserError:
    """The error of an archive that is laid out in no known way."""
    found = [os.path.relpath(folder, unpacked) for folder in [*folders_in(unpacked)][1:]]
    found += [name for name in sorted(os.listdir(unpacked)) if name not in found]
    return UserError(
        f"the archive is laid out in an unknown way: {what}; it has {first_few(found) or 'nothing'}. Unpack it by hand as "
        "CoOp's DATASETS.md says"
    )


def merge(source: str, target: str) -> None:
    """Move a file or a folder to a place that may have some of it: existing files stay."""
    if not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)
    elif os.path.isdir(source):
        for name in os.listdir(source):
            merge(f"{source}/{name}", f"{target}/{name}")


def settle(cls: type[ImageDataset], unpacked: str, target: str) -> None:
    """Move a data set from the unpacked archive to its folder.

    Raises:
        UserError: as ``locate``.
    """
    beside, images = locate(cls, unpacked)
    place = os.path.normpath(f"{beside}/{cls.image_dir}")
    if images == place:
        merge(beside, target)  # with all that lies there
        return
    for name in cls.lists:
        if os.path.isfile(f"{beside}/{name}"):
            merge(f"{beside}/{name}", f"{target}/{name}")
    merge(images, os.path.normpath(f"{target}/{cls.image_dir}"))


def leave_samples_aside(unpacked: str) -> None:
    """Remove few-shot samples from the unpacked archive: a run would take them in place of CoOp's draws."""
    for folder in [*folders_in(unpacked)]:
        samples = f"{folder}/{SAMPLES}"
        if os.path.isdir(samples):
            shutil.rmtree(samples)
            log.warning(
                "the archive's %s is left aside: samples are drawn with the run's seed, as CoOp draws them",
                SAMPLES,
            )


def add_classnames(root: str, target: str, folder: str | None) -> None:
    """Copies CoOp's class names of ImageNet to a data set that lacks them, from --from or from
    another of the sets that have them.

    Raises:
        UserError: none has them.
    """
    if os.path.exists(f"{target}/{CLASSNAMES_FILE}"):
        return
    places = [f"{root}/{place}" for place in NAMED_BY_COOP]
    for place in [folder, *places] if folder else places:
        if os.path.isfile(f"{place}/{CLASSNAMES_FILE}"):
            shutil.copyfile(f"{place}/{CLASSNAMES_FILE}", f"{target}/{CLASSNAMES_FILE}{UNFINISHED}")
            os.rename(f"{target}/{CLASSNAMES_FILE}{UNFINISHED}", f"{target}/{CLASSNAMES_FILE}")
            return
    raise UserError(f"{target} lacks {CLASSNAMES_FILE}: {WHERE_CLASSNAMES}")


# ---- the command ----


@contextlib.contextmanager
def scratch(root: str, name: str) -> Iterator[str]:
    """Path of a folder below the root that is not there yet, and not any more after the block; the remains of a
    killed process are removed first."""
    place = f"{root}/.{name}{UNFINISHED}"
    shutil.rmtree(place, ignore_errors=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def clone(address: str, folder: str) -> None:
    """Clone a repository into a folder, without its history.

    Raises:
        UserError: git is not installed, or fails.
    """
    command = ["git", "clone", "--quiet", "--depth", "1", address, folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"git is not installed: install it, {address} is cloned by it") from error
    if done.returncode:
        why = " ".join(done.stderr.split())
        raise UserError(f"git clone {address} fails ({why}): give the same command again")
    shutil.rmtree(f"{folder}/.git")


def get(name: str, args: argparse.Namespace, hub: Hub | None) -> None:
    """Get the data sets of one name.

    Args:
        hub: where archives come from; None: --from.

    Raises:
        UserError: it can't be had; OSError: the disk is full, or fails.
    """
    source = SOURCES[name]
    root = args.root
    cls = data_set(source.sets[0])
    target = cls.place(root)
    if source.by_hand:
        if args.source is None:
            raise UserError(f"{cls.how_to_get(target)}; {CLASSNAMES_FILE}: {WHERE_CLASSNAMES}")
        ilsvrc.sort(args.source, target, args.labels)
        add_classnames(root, target, args.source)
        return
    with scratch(root, name) as place:
        if source.clone:
            log.info("%s: git clone %s", name, source.clone)
            clone(source.clone, place)
            merge(place, f"{root}/{cls.dataset_dir.split('/')[0]}")
            return
        if hub is not None:
            path = hub.download(source)
        else:
            files = os.listdir(args.source)
            path = os.path.join(args.source, archive_of(source, files, args.source))
        log.info("%s: unpacking %s", name, path)
        unpack(path, place)
        leave_samples_aside(place)
        settle(cls, place, target)
        if CLASSNAMES_FILE in cls.lists:
            add_classnames(root, target, args.source)


def show_plan(names: Sequence[str], hub: Hub | None) -> str:
    """Return a table of the planned downloads; hub: None where nothing comes from it."""
    rows = []
    total = 0
    for name in names:
        source = SOURCES[name]
        size = 0
        what = source.clone or source.by_hand
        if hub is not None and source.archives:
            what = hub.archive(source)
            size = hub.files[what].size if what in hub.files else 0
        total += size
        rows.append((name, f"{size / 1e6:,.1f} MB" if size else "unknown", what))
    table = tabulate(rows, ("name", "size", "from"), disable_numparse=True)
    failure = f"The hub is not reached ({hub.failure})\n" if hub and hub.failure else ""
    return (
        f"{table}\n{failure}{total / 1e9:,.2f} GB of archives of known size, which stay in huggingface_hub's cache, and at most "
        "about as much again when unpacked\n"
    )


def run(args: argparse.Namespace) -> int:
    """Exit code: 0, or 1 if something can't be had, or is not the set that papers report on.

    Raises:
        UserError: the command can't work; OSError: the disk is full, or fails.
    """
    names = list(dict.fromkeys(MIRRORED if ALL_SETS in args.names else args.names))
    args.root = os.path.abspath(os.path.expanduser(args.root))
    if args.source is not None and not os.path.isdir(args.source):
        raise UserError(f"--from {args.source} is no folder: give the one with what you downloaded")
    missing = missing_of(names, args.root)
    for name in names:
        if name not in missing:
            log.info("%s is there already", name)
    is_mirrored = any(SOURCES[name].archives for name in missing)
    hub = Hub() if is_mirrored and args.source is None else None
    if args.plan:
        sys.stdout.write(show_plan(missing, hub) if missing else "nothing is missing\n")
        return 0
    failed = []
    if missing:
        with only_writer(args.root):
            for name in missing:
                try:
                    get(name, args, hub)
                except UserError as error:
                    failed.append(name)
                    log.error("error: %s: %s", name, error)
    sets = [each for name in names for each in SOURCES[name].sets]
    check.main([*sets, "--root", args.root])
    others = [each for each in sets if not is_the_fields(each, args.root)]
    for each in others:
        log.error("error: %s is not the set that papers report: its row says why", each)
    return 1 if failed or others else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    known = [ALL_SETS, *SOURCES]
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"what to get: {', '.join(known)}")
    parser.add_argument("--root", default="data", help="folder of the data sets (data)")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER",
        help="take archives from this folder, not from the hub; imagenet: the folder with its tars, or with a flat val",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="imagenet: classes of the validation images, a line each with name and WordNet id (default: those of the devkit)",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print sizes and addresses; get nothing"
    )
    args = parser.parse_args(arguments)
    for name in args.names:
        if name not in known:
            parser.error(f"there is no data set {name}{nearest(name, known)}")
    return run_tool(run, args, log)


if __name__ == "__main__":
    sys.exit(main())
