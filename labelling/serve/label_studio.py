"""Label Studio's ML backend: it asks for predictions of tasks, and tells of annotations.

The protocol is that of ``label-studio-ml-backend``: ``/health``, ``/setup`` with the labelling interface,
``/predict`` with tasks, ``/webhook`` with an annotation. No address is fetched: a task's picture is a file below
the server's root, as Label Studio's local storage names it.
"""

import logging
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask, Response, jsonify

from trainers.common.console import first_few
from trainers.common.errors import UserError

from ..answers.label_studio import prediction_of
from ..answers.writers import version_of
from ..readers.label_studio import address_of
from ..readers.rows import names_of
from .asked import below, rows
from .bodies import body_json, refusal

if TYPE_CHECKING:
    from .demo import Demo
    from .rounds import Rounds

log = logging.getLogger("serve")
CHANGES = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED")


class Interface(NamedTuple):
    """The part of a labelling interface that a run answers.

    Attributes:
        from_name, to_name: of the choices, and of the picture that they are of.
        choices: the values; is_multiple: whether a picture may have several.
    """

    from_name: str = "choice"
    to_name: str = "image"
    choices: tuple[str, ...] = ()
    is_multiple: bool = False


class Tags(HTMLParser):
    """Collects the tags of an interface; no entity of XML is expanded, and nothing is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: dict[str, str | None] = {}
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "choices" and not self.choices:
            self.choices = known
        if tag == "choice":
            self.values.append(known.get("value") or "")


def read_interface(text: str) -> Interface:
    """Return the first choices of a labelling interface, Label Studio's XML.

    Raises:
        UserError: there are none.
    """
    tags = Tags()
    tags.feed(text)
    known = tags.choices
    if not known.get("name") or not known.get("toname"):
        raise UserError(
            'the labelling interface has no choices: give it <Image name="image" value="$image"/> and '
            '<Choices name="choice" toName="image"> with a <Choice value="…"/> per class'
        )
    is_multiple = known.get("choice") == "multiple"
    return Interface(str(known["name"]), str(known["toname"]), tuple(tags.values), is_multiple)


def check_interface(interface: Interface, demo: "Demo") -> None:
    """Refuse an interface that can't show a run's answers.

    Raises:
        UserError: it lacks a class, or takes one label of a run that gives several.
    """
    if demo.multi_label and not interface.is_multiple:
        raise UserError(
            'this run gives a picture several labels: write <Choices … choice="multiple">'
        )
    missing = [name for name in demo.classnames if name not in interface.choices]
    if missing:
        raise UserError(
            f"the labelling interface lacks classes of the run: add <Choice value=…/> for {first_few(missing)}"
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
            check_interface(read_interface(schema), demo)
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
    places = []
    try:
        interface = read_interface(config) if config else Interface()
        for task in tasks:
            try:
                places.append(place_of(demo, task))
            except UserError as error:
                log.warning("%s", error)
                places.append("")
    except (UserError, LookupError, TypeError, AttributeError, ValueError) as error:
        return refusal(f"the tasks can't be answered: {error}")
    results = []
    for row in rows(demo, [(place, place) for place in places]):
        if "error" in row:
            results.append({"model_version": model, "score": 0.0, "result": []})
        else:
            results.append(prediction_of(row, model, interface.from_name, interface.to_name))
    return jsonify({"results": results, "model_version": model})
