"""The page of ``demo_app.py`` as a web application, served to this machine only."""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainers.common.errors import UserError
from trainers.common.image_files import ENDINGS

from .demo import MAX_BYTES, Demo, class_names

if TYPE_CHECKING:
    from flask import Flask, Response
    from waitress.server import BaseWSGIServer

HOST = "127.0.0.1"  # no other machine can reach it
MAX_REQUEST = 4 * MAX_BYTES  # of all that a browser sends at once
HEADERS = {  # whatever got into the page, the browser would load nothing from elsewhere, and run nothing
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer a form of the page itself would come with Origin: null
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # the next run on this port has other examples under the same addresses
}


def make_app(demo: Demo) -> "Flask":
    """The page as a ``Flask`` application.

    Raises:
        UserError: Flask is not installed.
    """
    try:
        from flask import Flask, abort, render_template, request
    except ImportError as error:
        raise UserError("the page needs the package flask: pip install -e '.[app]'") from error
    app = Flask("demo_app", root_path=os.path.dirname(os.path.abspath(__file__)))
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]  # against DNS rebinding

    @app.before_request
    def only_own_forms() -> None:
        """Refuses a form that another site sends, by the browser's Origin header."""
        if (
            request.method == "POST"
            and request.headers.get("Origin", request.host_url[:-1]) != request.host_url[:-1]
        ):
            abort(403)

    def page(names: Sequence[str], error: UserError | str = "", **shown: object) -> str:
        """shown: the template's ``key`` of a picture, ``answer``, and ``field`` of the error."""
        text = str(error)
        sentence = text and f"{text[0].upper()}{text[1:]}."
        return render_template(
            "page.html", demo=demo, names=names, error=sentence, endings=ENDINGS, **shown
        )

    @app.route("/", methods=["GET", "POST"])
    def index() -> str:
        text = request.form.get("classes", "\n".join(demo.classnames))
        lines = text.splitlines()
        key, upload = request.values.get("picture"), request.files.get("upload")
        kept = request.form.get("kept") or None
        if request.method == "GET" and key is None:
            return page(lines)
        try:
            if key is None:
                key = demo.pictures.keep(upload) if upload else kept
            if key is None:
                raise UserError(
                    "there is no picture: choose one"
                    + (", or take an example" if demo.pictures.examples else "")
                )
            demo.pictures.open(key)
        except UserError as error:
            return page(lines, error, field="upload")
        try:
            answer = demo.ask(key, class_names(text, demo.classnames))
            return page(lines, key=key, answer=answer)
        except UserError as error:
            return page(lines, error, key=key, field="classes")

    @app.get("/pictures/<key>")
    def picture(key: str) -> "Response":
        try:
            return app.response_class(demo.pictures.shown(key), mimetype="image/png")
        except UserError:
            abort(404)

    @app.errorhandler(413)
    def too_large(_: Exception) -> tuple[str, int]:
        return page(
            demo.classnames,
            "that is more text than the page takes: give fewer class names",
            field="classes",
        ), 413

    @app.after_request
    def with_headers(response: "Response") -> "Response":
        response.headers.update(HEADERS)
        return response

    return app


def make_server(app: "Flask", port: int) -> "BaseWSGIServer":
    """A ``waitress`` server for localhost only.

    Raises:
        UserError: waitress is not installed, or the port cannot be used.
    """
    try:
        from waitress import create_server
    except ImportError as error:
        raise UserError("the page needs the package waitress: pip install -e '.[app]'") from error
    logging.getLogger("waitress.queue").setLevel(
        logging.ERROR
    )  # the pictures of a page wait for one another, which is no news
    if not 0 <= port < 2**16:  # waitress takes what is left of it modulo 65536
        raise UserError(f"--port is {port}, it must be between 0, for any that is free, and 65535")
    try:
        return create_server(
            app, host=HOST, port=port, threads=4, max_request_body_size=MAX_REQUEST
        )
    except OSError as error:
        raise UserError(
            f"--port {port} cannot be used ({error.strerror}): give another, or 0 for any that is free"
        ) from error
