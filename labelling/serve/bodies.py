"""Bodies of requests that are JSON, and the answer to those that can't work."""

from typing import Any

from flask import Response, abort, jsonify, make_response, request

from trainers.common.readers import parse_json


def body_json() -> Any:  # noqa: ANN401  (whatever was sent)
    """Return the JSON of a request; a body that is not JSON ends the request with 400."""
    try:
        return parse_json(request.get_data())
    except ValueError:
        abort(make_response(refusal("what was sent is no JSON")))


def refusal(message: str, status: int = 400) -> tuple[Response, int]:
    """Return a response that names the mistake."""
    return jsonify({"error": message}), status
