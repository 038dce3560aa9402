"""COCO's ``instances_*.json``: a picture has the categories that occur in it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainers.common.fingerprints import listed_path
from trainers.common.readers import Stored

from .rows import Row, Source, find


def read_coco(content: Mapping[str, Stored]) -> Source:
    """Return what a file of COCO's says.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is no such file, or an id is there twice, as
            where two exports were joined.
    """
    check_ids("image", content["images"])
    check_ids("category", content["categories"])
    names = {category["id"]: category["name"].strip() for category in content["categories"]}
    found: dict[object, list[str]] = {image["id"]: [] for image in content["images"]}
    for note in content["annotations"]:
        for key, known in (("category_id", names), ("image_id", found)):
            if note[key] not in known:
                raise ValueError(f"annotation {note.get('id')} has an unknown {key}")
        found[note["image_id"]].append(names[note["category_id"]])
    rows = []
    for image in content["images"]:
        own = tuple(dict.fromkeys(found[image["id"]]))
        if not isinstance(image["file_name"], str):
            raise ValueError(
                f"image {image['id']} has the file_name {image['file_name']!r}, which is no path"
            )
        rows.append(Row(f"image {image['id']}", image["file_name"], own))
    return Source(rows)


def check_ids(what: str, entries: Sequence[Stored]) -> None:
    """Refuse an id that two entries have.

    Raises:
        ValueError: there is one.
    """
    for number, count in Counter(entry["id"] for entry in entries).items():
        if count > 1:
            raise ValueError(
                f"it has the {what} id {number} twice, so that what belongs to which is not known: number them anew"
            )


def find_coco(row: Row, folder: str, path: str) -> str:
    """Return the file that a row means (``rows.find``); COCO's images lie in a folder beside that of the
    file, too, which is called by its part: ``annotations/instances_val2017.json`` and ``val2017/``."""
    part = Path(path).stem.removeprefix("instances_")
    for beside in (part, f"../{part}", "images", "../images"):
        name = os.path.join(beside, row.image)
        if os.path.isfile(os.path.join(folder, name)):
            return listed_path(folder, name)
    return find(row, folder, path)
