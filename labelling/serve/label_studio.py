"""Label Studio's ML backend: it asks for predictions of tasks, and tells of annotations.

The protocol is that of ``label-studio-ml-backend``: ``/health``, ``/setup`` with the labelling interface,
``/predict`` with tasks, ``/webhook`` with an annotation. No address is fetched: a task's picture is a file below
the server's root, as Label Studio's local storage names it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask, Response, jsonify

from trainers.common.boxes import boxed
from trainers.common.console import first_few
from trainers.common.errors import UserError

from ..answers.label_studio import Answered, label_rectangle, prediction_of, rectangles_of
from ..answers.writers import version_of
from ..readers.label_studio import (
    LABELLED,
    Rectangle,
    address_of,
    box_in,
    rectangles_in,
    shown_note,
)
from ..readers.rows import names_of
from .asked import below, rows
from .bodies import body_json, refusal

if TYPE_CHECKING:
    from .demo import Demo
    from .rounds import Rounds

log = logging.getLogger("serve")
CHOICES = "choices"
VALUES = {CHOICES: "choice", LABELLED: "label"}  # tag of an interface → tag of its values
CHANGES = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED")


class Interface(NamedTuple):
    """The part of a labelling interface that a run answers.

    Attributes:
        from_name, to_name: of the choices, and of the picture that they are of.
        choices: the values; is_multiple: whether a picture may have several.
        tag: ``choices``, or ``rectanglelabels``, whose rectangles are the pictures.
    """

    from_name: str = "choice"
    to_name: str = "image"
    choices: tuple[str, ...] = ()
    is_multiple: bool = False
    tag: str = CHOICES


class Tags(HTMLParser):
    """Collects the tags of an interface; no entity of XML is expanded, and nothing is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, dict[str, str | None]] = {}  # tag → attributes of its first
        self.values: dict[str, list[str]] = {tag: [] for tag in VALUES.values()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag in VALUES:
            self.first.setdefault(tag, known)
        if tag in self.values:
            self.values[tag].append(known.get("value") or "")


def read_interface(text: str, boxes: bool = False) -> Interface:
    """Return the first choices of a labelling interface, Label Studio's XML, or the first labels of rectangles.

    boxes: whether a run is on boxes, which prefers rectangles where the interface has both.

    Raises:
        UserError: there are none.
    """
    tags = Tags()
    tags.feed(text)
    tag = next((tag for tag in sorted(VALUES, reverse=boxes) if tag in tags.first), CHOICES)
    known = tags.first.get(tag, {})
    if not known.get("name") or not known.get("toname"):
        raise UserError(
            'the labelling interface has no choices: give it <Image name="image" value="$image"/> and '
            '<Choices name="choice" toName="image"> with a <Choice value="…"/> per class, or for boxes '
            '<RectangleLabels name="label" toName="image"> with a <Label value="…"/>'
        )
    values = tuple(tags.values[VALUES[tag]])
    is_multiple = known.get("choice") == "multiple"
    return Interface(str(known["name"]), str(known["toname"]), values, is_multiple, tag)


def interface_of(text: str, demo: "Demo") -> Interface:
    """Return the part of an interface that a run answers (``read_interface``)."""
    return read_interface(text, demo.classifier.cfg.DATASET.BOXES)


def check_interface(interface: Interface, demo: "Demo") -> None:
    """Refuse an interface that can't show a run's answers.

    Raises:
        UserError: it lacks a class, or takes one label of a run that gives several.
    """
    if demo.multi_label and not interface.is_multiple:
        raise UserError(
            'this run gives a picture several labels: write choice="multiple" into <Choices> or <RectangleLabels>'
        )
    missing = [name for name in demo.classnames if name not in interface.choices]
    if missing:
        raise UserError(
            f"the labelling interface lacks classes of the run: add <{VALUES[interface.tag].title()} value=…/> for "
            f"{first_few(missing)}"
        )


def add_label_studio(app: Flask, demo: "Demo", rounds: "Rounds | None") -> None:
    """Add the addresses of an ML backend to an application; rounds: None, where none are made."""

    @app.get("/health")
    def health() -> Response:
        return jsonify({"status": "UP", "model_class": type(demo.classifier).__name__})

    @app.post("/setup")
    def setup() -> Response | tuple[Response, int]:
        content = body_json()
        schema = content.get("schema") if isinstance(content, dict) else None
        if not isinstance(schema, str):
            return refusal("the setup has no schema, the labelling interface")
        try:
            check_interface(interface_of(schema, demo), demo)
        except UserError as error:
            return refusal(str(error))
        return jsonify({"model_version": version_of(demo.classifier.method)})

    @app.post("/webhook")
    def webhook() -> Response | tuple[Response, int]:
        content = body_json()
        action = content.get("action") if isinstance(content, dict) else None
        if not isinstance(action, str):
            return refusal("the webhook has no action")
        if rounds is None:
            return jsonify(
                {"status": "ignored", "reason": "no rounds are made here: --train-after"}
            )
        if action == "START_TRAINING":
            return jsonify({"status": rounds.begin()}), 201
        if action not in CHANGES:
            return jsonify({"status": "ignored", "reason": f"nothing is learned from {action}"})
        try:
            place = place_of(demo, content.get("task"))
            return jsonify(
                {
                    "status": rounds.take_annotation(
                        action, place, content["task"], content["annotation"]
                    )
                }
            ), 201
        except (UserError, LookupError, TypeError, AttributeError, ValueError) as error:
            return refusal(f"the annotation can't be taken: {error}")


def place_of(demo: "Demo", task: Any) -> str:  # noqa: ANN401  (whatever was sent)
    """Return the path of a task's picture.

    Raises:
        UserError: it is no file below the root; ValueError, LookupError, TypeError, AttributeError: the task
            is of another form.
    """
    address = address_of(task["data"])
    places = [below(demo.root, name) for name in names_of(address)] if demo.root else []
    if not any(places):
        raise UserError(f"{address} is no picture below the folder that --root names")
    return next(filter(None, places))


def predictions(demo: "Demo", content: Mapping[str, Any]) -> Response | tuple[Response, int]:
    """The predictions of tasks; of one whose picture can't be read an empty one."""
    tasks = content["tasks"]
    config = content.get("label_config")
    if not isinstance(tasks, list) or not isinstance(config, str | None):
        return refusal("the tasks are no list, or the label_config is no text")
    model = version_of(demo.classifier.method)
    asked: list[Asked] = []
    try:
        interface = interface_of(config, demo) if config else Interface()
        for number, task in enumerate(tasks):
            try:
                asked += pictures_of(number, task, place_of(demo, task), interface.tag)
            except UserError as error:
                log.warning("%s", error)
    except (UserError, LookupError, TypeError, AttributeError, ValueError) as error:
        return refusal(f"the tasks can't be answered: {error}")
    answered: list[list[Answered]] = [[] for _ in tasks]
    for one, row in zip(asked, rows(demo, [(one.path, one.path) for one in asked])):
        if "error" not in row:
            answered[one.task].append((row, one.rectangle))
    results = [prediction(own, model, interface) for own in answered]
    return jsonify({"results": results, "model_version": model})


class Asked(NamedTuple):
    """A picture that is asked for.

    Attributes:
        task: place of its task among those of a request.
        path: of the picture; rectangle: the box that it is, None for a whole picture.
    """

    task: int
    path: str
    rectangle: Rectangle | None


def pictures_of(number: int, task: Any, place: str, tag: str) -> Iterator[Asked]:  # noqa: ANN401
    """Yield the pictures of a task: its picture, or the boxes that its rectangles are.

    Args:
        number: of the task; place: path of its picture; tag: of the ``Interface``.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: a rectangle is turned, or of another form.
    """
    if tag == CHOICES:
        yield Asked(number, place, None)
        return
    note, _ = shown_note(task)
    for result in rectangles_in(note):
        if box := box_in(result):
            yield Asked(number, boxed(place, box), Rectangle(task, result))


def prediction(answered: Sequence[Answered], model: str, interface: Interface) -> dict[str, object]:
    """Return the prediction of a task of answered pictures; an empty one where there are none."""
    names = interface.from_name, interface.to_name
    if interface.tag == CHOICES and answered:
        return prediction_of(answered[0][0], model, *names)
    return rectangles_of([label_rectangle(row, own, *names) for row, own in answered], model)
