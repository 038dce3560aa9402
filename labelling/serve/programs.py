"""``POST /predict`` for programs: pictures in, rows of JSON out; or Label Studio's tasks."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, request

from .asked import Answer, below, rows
from .bodies import body_json, refusal
from .label_studio import predictions

if TYPE_CHECKING:
    from .demo import Demo


def add_predict(app: Flask, demo: "Demo") -> None:
    """Add ``POST /predict`` to an application: a picture's bytes, several as a form, or JSON of paths."""

    @app.post("/predict")
    def predict() -> Response | tuple[Response, int]:
        if request.mimetype == "application/json":
            content = body_json()
            if isinstance(content, dict) and "tasks" in content:
                return predictions(demo, content)
            paths = content.get("paths") if isinstance(content, dict) else None
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                return refusal('the JSON is no {"paths": ["cat.jpg", …]}')
            if not demo.root:
                return refusal(
                    "no path is read: start cdc-serve with --root FOLDER, or send pictures"
                )
            return response_to(rows(demo, ((path, below(demo.root, path)) for path in paths)))
        if request.mimetype == "multipart/form-data":
            files = [file for part in request.files.listvalues() for file in part]
            return response_to(rows(demo, ((file.filename, file.stream) for file in files)))
        return response_to(rows(demo, [(None, io.BytesIO(request.get_data()))]))


def response_to(table: Sequence[Answer]) -> Response | tuple[Response, int]:
    """Return the response to pictures' rows: an error if there is no row, or none of the pictures can be
    read."""
    if not table:
        return refusal("there is no picture: send its bytes, several as a form, or JSON of paths")
    errors = [row["error"] for row in table if "error" in row]
    if len(errors) == len(table):
        return refusal(f"not one picture can be read; the first: {errors[0]}")
    return jsonify(table)
