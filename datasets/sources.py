"""Sources of data sets, and the command that gets one, from get.yaml."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from trainers.common.readers import read_yaml


@dataclass(frozen=True)
class Source:
    """The source behind one name of ``python -m datasets.get``.

    Attributes:
        sets: registered names of the data sets that are read from it.
        archives: file names of its archive, the mirror's first; empty without a mirror.
        sha256: of the mirror's archive, 64 hex digits; empty where it is not known.
        clone: address for ``git clone``; empty where it has none.
        by_hand: the download by hand, and its address; empty where none is needed.
    """

    sets: list[str]
    archives: tuple[str, ...] = ()
    sha256: str = ""
    clone: str = ""
    by_hand: str = ""


_TABLE = read_yaml(Path(__file__).with_name("get.yaml"))
MIRROR: str = _TABLE["mirror"]  # repository on the Hugging Face hub
REVISION: str = _TABLE["revision"]  # its commit that archives are taken from
SPLITS: dict[str, str] = _TABLE["splits"]  # name of a split file of CoOp's → its SHA-256
SOURCES = {name: Source(**entry) for name, entry in _TABLE["names"].items()}


def how_to_get(data_set: str, root: str) -> str:
    """The command that gets a data set, in words.

    Args:
        data_set: its registered name; root: folder of the data sets.
    """
    for name, source in SOURCES.items():
        if data_set in source.sets:
            command = f"python -m datasets.get {name} --root {shlex.quote(root)}"
            if source.by_hand:
                return f"{command} --from FOLDER sorts what you have downloaded to FOLDER: {source.by_hand}"
            return f"{command} gets it"
    return "put it there"  # a data set of one's own
