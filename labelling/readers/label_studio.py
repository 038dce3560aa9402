"""Label Studio's JSON export of choices: of each task those of the annotation that was made or changed last."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from trainers.common.boxes import Box, boxed, cut_off, whole_pixels
from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.readers import Stored

from .rows import EACH_BOX, NO_PIXEL, Row, Source, left_out_because

LABELLED = "rectanglelabels"
RECTANGLES = (LABELLED, "rectangle")  # types of results, with labels and without
NOT_CONFIRMED = "has predictions only, which are no labels: confirm or correct them in Label Studio, then export annotations (JSON)"
BOXES_ALONE = "has rectangles and no choices: with --boxes each of them is a picture of its own"


class Rectangle(NamedTuple):
    """A rectangle as an export has it: its task, and the result in the task's annotation or prediction."""

    task: Stored
    result: Stored


def read_tasks(tasks: Stored) -> Source:
    """Return the pictures and the labels of an export of Label Studio.

    Raises:
        ValueError: it is no such export; UserError: it has predictions only.
    """
    rows = []
    differing = []
    has_predictions = False
    has_boxes = False
    for where, task in each_task(tasks):
        with blaming(where):
            annotations = annotations_of(task)
            if len({frozenset(choices_of(note)) for note in annotations}) > 1:
                differing.append(where)
            names = None
            time = None
            if annotations:
                last = newest(annotations)
                names = choices_of(last)
                time = time_of(last)
            has_predictions |= bool(task.get("predictions"))
            has_boxes |= any(map(rectangles_in, annotations))
            rows.append(Row(where, address_of(task["data"]), names, time=time))
    if has_predictions and all(row.names is None for row in rows):
        raise UserError(NOT_CONFIRMED)
    if has_boxes and not any(row.names for row in rows):
        raise UserError(BOXES_ALONE)
    notes = [EACH_BOX] if has_boxes else []
    if differing:
        notes.append(
            f"The annotations of {counted(len(differing), 'task')} differ, such as {differing[0]}: of each the newest "
            "is taken"
        )
    return Source(rows, notes=notes)


def read_rectangles(tasks: Stored) -> Source:
    """Return a row for each rectangle of each task's newest annotation or, without labels, which nobody has
    confirmed, of its first prediction.

    Raises:
        ValueError: it is no export of Label Studio's, a rectangle is turned, or has no single label.
    """
    rows = []
    outside = []
    for where, task in each_task(tasks):
        with blaming(where):
            image = address_of(task["data"])
            note, is_confirmed = shown_note(task)
            for result in rectangles_in(note):
                box = box_in(result)
                if box is None:
                    outside.append(where)
                    continue
                given = result["value"].get(LABELLED) if is_confirmed else None
                names = tuple(name.strip() for name in given) if given else None
                own = Rectangle(task, result)
                rows.append(Row(where, boxed(image, box), names, time=time_of(note), entry=own))
    return Source(rows, notes=left_out_because(NO_PIXEL, outside), is_row_per_label=True)


def each_task(tasks: Stored) -> Iterator[tuple[str, Stored]]:
    """Yield where each task of an export is, in words, and the task.

    Raises:
        ValueError: it is not a list of tasks.
    """
    if not isinstance(tasks, list):
        raise ValueError("it is no list of tasks")
    for number, task in enumerate(tasks, 1):
        with blaming(f"task {number}"):
            where = f"task {task.get('id', number)}"
        yield where, task


@contextlib.contextmanager
def blaming(where: str) -> Iterator[None]:
    """Name a task in the errors of a block that reads it; where: the task, in words.

    Raises:
        ValueError: the task is of another form.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{where} is of another form: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{where} has {error}") from error


def shown_note(task: Stored) -> tuple[Stored, bool]:
    """Return the newest annotation of a task, else its first prediction, and whether a person has made it."""
    annotations = annotations_of(task)
    if annotations:
        return newest(annotations), True
    return next(iter(task.get("predictions") or ()), {"result": []}), False


def rectangles_in(note: Stored) -> list[Stored]:
    """Return the rectangles of an annotation or a prediction."""
    return [result for result in note["result"] if result["type"] in RECTANGLES]


def box_in(result: Stored) -> Box | None:
    """Return the box of a rectangle, which Label Studio gives in percent of the photograph; None where no pixel
    lies in it.

    Raises:
        ValueError: it is turned, or a number is not finite.
    """
    value = result["value"]
    if value.get("rotation"):
        raise ValueError(
            f"a rectangle that is turned by {value['rotation']:g} degrees: draw it upright"
        )
    width, height = result["original_width"], result["original_height"]
    box = whole_pixels(
        *(round_pixels(value[key], side) for key, side in (("x", width), ("y", height))),
        *(round_pixels(value[key], side) for key, side in (("width", width), ("height", height))),
    )
    return None if box is None else cut_off(box, width, height)


def round_pixels(percent: float, side: int) -> float:
    """Return a share of a side in pixels: a millionth of a pixel is an error of floating point."""
    return round(percent / 100 * side, 6)


def annotations_of(task: Stored) -> list[Stored]:
    """Return the annotations of a task that were not cancelled."""
    return [note for note in task.get("annotations") or () if not note.get("was_cancelled")]


def choices_of(annotation: Stored) -> tuple[str, ...]:
    """Return the choices of an annotation, each once.

    Raises:
        ValueError: they are not a list.
    """
    choices: list[str] = []
    for result in annotation["result"]:
        if result["type"] != "choices":
            continue
        given = result["value"]["choices"]
        if not isinstance(given, list):
            raise ValueError(f"the choices {given!r}, which are no list")
        choices += [name.strip() for name in given]
    return tuple(dict.fromkeys(choices))


def newest(annotations: Sequence[Stored]) -> Stored:
    """Return the annotation that was changed, or else made, last; the last one where that is not known of each."""
    times = [time_of(annotation) for annotation in annotations]
    known = [(time, place) for place, time in enumerate(times) if time is not None]
    return annotations[max(known)[1] if len(known) == len(times) else -1]


def time_of(annotation: Stored) -> datetime | None:
    """Return when an annotation was changed, or else made; None where it doesn't say."""
    text = annotation.get("updated_at") or annotation.get("created_at")
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def address_of(data: Stored) -> str:
    """Return the address of a task's image.

    Raises:
        ValueError: it has none, or several.
    """
    if "image" not in data:
        addresses: list[str] = [value for value in data.values() if is_address(value)]
        if len(addresses) != 1:
            raise ValueError(counted(len(addresses), "image"))
        return addresses[0]
    image = data["image"]
    if not isinstance(image, str):
        raise ValueError(f"the image {image!r}, which is no path")
    return image


def is_address(value: object) -> bool:
    """Return whether a value of a task can be an image's address, and not a text or number about it."""
    return isinstance(value, str) and ("/" in value or "." in value)


def looks_multi_label(tasks: Stored) -> bool:
    """Return whether a task has several choices: of an annotation, or of a run's prediction, of which a person
    may have left one.

    Raises:
        LookupError, TypeError, AttributeError: it is no such export.
    """
    for task in tasks:
        annotations = annotations_of(task)
        if annotations and len(choices_of(newest(annotations))) > 1:
            return True
        for note in task.get("predictions") or ():
            if isinstance(note, dict) and len(choices_of(note)) > 1:
                return True
    return False
