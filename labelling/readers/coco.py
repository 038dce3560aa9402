"""COCO's ``instances_*.json``: a picture has the categories that occur in it, or each box is a picture."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainers.common.boxes import boxed, cut_off, file_of, whole_pixels
from trainers.common.fingerprints import listed_path
from trainers.common.readers import Stored

from .rows import EACH_BOX, NO_PIXEL, Row, Source, find, left_out_because


def read_coco(content: Mapping[str, Stored]) -> Source:
    """Return what a file of COCO's says.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is no such file, or an id is there twice, as
            where two exports were joined.
    """
    names, images = names_and_images(content)
    found: dict[object, list[str]] = {number: [] for number in images}
    for note in content["annotations"]:
        found[note["image_id"]].append(names[note["category_id"]])
    rows = []
    for number, image in images.items():
        own = tuple(dict.fromkeys(found[number]))
        rows.append(Row(f"image {number}", image["file_name"], own))
    has_boxes = any(note.get("bbox") for note in content["annotations"])
    return Source(rows, notes=[EACH_BOX] if has_boxes else [])


def read_coco_boxes(content: Mapping[str, Stored]) -> Source:
    """Return a row for each box of a file of COCO's, without crowds, which are no single thing. A detector's box
    without a category has no label.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: as ``read_coco``, or a box is none.
    """
    names, images = names_and_images(content)
    check_ids("annotation", content["annotations"])
    rows = []
    crowds = []
    outside = []
    for note in content["annotations"]:
        where = f"annotation {note['id']}"
        if note.get("iscrowd"):
            crowds.append(where)
            continue
        image = images[note["image_id"]]
        try:
            box = whole_pixels(*note["bbox"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} has no bbox of four numbers ({error})") from error
        if box is not None and "width" in image and "height" in image:
            box = cut_off(box, image["width"], image["height"])
        if box is None:
            outside.append(where)
            continue
        category = note.get("category_id")
        own = None if category is None else (names[category],)
        rows.append(Row(where, boxed(image["file_name"], box), own, entry=note))
    notes = left_out_because("they are crowds (iscrowd)", crowds)
    notes += left_out_because(NO_PIXEL, outside)
    return Source(rows, notes=notes, is_row_per_label=True)


def names_and_images(
    content: Mapping[str, Stored],
) -> tuple[dict[object, str], dict[object, Stored]]:
    """Return category's id → its name, and image's id → the image, of a file whose annotations name no others.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: as ``read_coco``.
    """
    check_ids("image", content["images"])
    check_ids("category", content["categories"])
    names = {category["id"]: category["name"].strip() for category in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    for note in content["annotations"]:
        for key, known in (("category_id", names), ("image_id", images)):
            if note.get(key) is not None and note[key] not in known:
                raise ValueError(f"annotation {note.get('id')} has an unknown {key}")
    for number, image in images.items():
        if not isinstance(image["file_name"], str):
            raise ValueError(
                f"image {number} has the file_name {image['file_name']!r}, which is no path"
            )
    return names, images


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
        if os.path.isfile(file_of(os.path.join(folder, name))):
            return listed_path(folder, name)
    return find(row, folder, path)
