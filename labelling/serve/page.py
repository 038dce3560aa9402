"""A run as a web application: the page, and what programs ask; served to this machine only, or to those that
know the token."""

import hmac
import logging
import os
from collections.abc import Sequence
from functools import partial

from flask import Flask, Response, abort, make_response, render_template, request
from waitress import create_server
from waitress.server import BaseWSGIServer

from trainers.common.errors import UserError
from trainers.common.image_files import IMAGE_ENDINGS
from trainers.evaluation.figures import decimal

from . import HOST
from .answer import percent
from .bodies import refusal
from .demo import Demo
from .label_studio import add_label_studio
from .programs import add_predict
from .rounds import Rounds

MAX_REQUEST = 64 * 2**20  # bytes of all that a browser sends at once
# a connection that sends nothing is ended, and others are served meanwhile
CONNECTIONS = {
    "connection_limit": 500,
    "channel_timeout": 10,
    "cleanup_interval": 5,
    "asyncore_use_poll": True,
}
HEADERS = {  # whatever got into the page, the browser would load nothing from elsewhere, and run nothing
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer a form of the page itself would come with Origin: null
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # the next run on this port has other examples under the same addresses
}


def make_app(demo: Demo, token: str = "", host: str = HOST, rounds: Rounds | None = None) -> Flask:
    """A run as a ``Flask`` application.

    Args:
        token: that each request has to send; "": none has to.
        host: that is served, as in ``make_server``.
        rounds: which Label Studio's annotations make; None: none.
    """
    app = Flask("serve", root_path=os.path.dirname(os.path.abspath(__file__)))
    if host == HOST:
        app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]  # against DNS rebinding
    if token:
        app.before_request(partial(only_with, token))
    app.before_request(only_own_forms)
    add_page(app, demo)
    add_predict(app, demo)
    add_label_studio(app, demo, rounds)
    app.after_request(with_headers)
    return app


def add_page(app: Flask, demo: Demo) -> None:
    """Add the page to an application, and the pictures that it shows."""
    app.jinja_env.filters.update(percent=percent, decimal=decimal)

    def page(names: Sequence[str], error: UserError | str = "", **shown: object) -> str:
        """Return the page; shown: the template's ``key`` of a picture, ``answer``, and ``field`` of the
        error."""
        return render_template(
            "page.html",
            demo=demo,
            names=names,
            error=sentence(error),
            endings=IMAGE_ENDINGS,
            **shown,
        )

    @app.route("/", methods=["GET", "POST"])
    def index() -> str:
        lines = request.form.get("classes", "\n".join(demo.classnames)).splitlines()
        if request.method == "GET" and "picture" not in request.args:
            return page(lines)
        try:
            key = asked_picture(demo)
            image = demo.open(key)
        except UserError as error:
            return page(lines, error, field="upload")
        _, truth = demo.examples.get(key, ("", None))
        names = [line.strip() for line in lines if line.strip()]
        try:
            return page(lines, key=key, answer=demo.ask(image, names, truth))
        except UserError as error:
            return page(lines, error, key=key, field="classes")

    @app.get("/pictures/<key>")
    def picture(key: str) -> Response:
        try:
            return app.response_class(demo.shown(key), mimetype="image/png")
        except UserError:
            abort(404)


def asked_picture(demo: Demo) -> str:
    """Return the key of the picture that a request asks about: an example, one that it brings along, or the
    last one again.

    Raises:
        UserError: there is none, or it can't be read.
    """
    if key := request.form.get("picture"):
        return key
    # a browser sends a file without a name where none is chosen
    if uploads := [file for file in request.files.getlist("upload") if file.filename]:
        return demo.keep_uploads(uploads)
    if key := request.args.get("picture") or request.form.get("kept"):
        return key
    if request.content_length and not (request.form or request.files):
        raise UserError(
            "what was sent can't be read, which happens where a picture's name is not UTF-8: rename it, or take an example"
        )
    raise UserError("there is no picture: choose one, or take an example")


def only_with(token: str) -> Response | None:
    """Refuse a request without the token: after ``Bearer``, or as the password of anybody, which browsers and
    Label Studio send."""
    given = request.authorization
    sent = "" if given is None else given.token or given.password or ""
    if hmac.compare_digest(sent.encode(), token.encode()):
        return None
    response = make_response(refusal("the token is missing or wrong", 401))
    response.headers["WWW-Authenticate"] = 'Basic realm="cdc-serve"'
    return response


def only_own_forms() -> None:
    """Refuse a form that another site sends, by what the browser says of where it comes from."""
    own = request.host_url  # with a slash at its end
    places = [request.headers.get(name, own) for name in ("Origin", "Referer")]
    is_own = all(f"{place}/".startswith(own) for place in places)
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if request.method == "POST" and not (is_own and site in ("same-origin", "none")):
        abort(403)


def with_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


def sentence(error: UserError | str) -> str:
    """An error as a sentence; "" for none."""
    text = str(error)
    return text and f"{text[0].upper()}{text[1:]}."


def make_server(app: Flask, port: int, host: str = HOST) -> BaseWSGIServer:
    """A ``waitress`` server, by default for this machine only.

    Raises:
        UserError: the port or the host cannot be used.
    """
    # the pictures of a page wait for one another, as usual
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    if not 0 <= port < 2**16:  # waitress takes what is left of it modulo 65536
        raise UserError(f"--port is {port}, it must be between 0, for any that is free, and 65535")
    try:
        return create_server(
            app, host=host, port=port, threads=4, max_request_body_size=MAX_REQUEST, **CONNECTIONS
        )
    except OSError as error:
        raise UserError(
            f"--port {port} cannot be used ({error.strerror}): give another, or 0 for any that is free"
        ) from error
    except ValueError as error:  # an address of no machine
        raise UserError(
            f"--host {host} cannot be used ({error}): give this machine's address"
        ) from error
