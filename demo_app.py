"""A page in the browser to try a trained run on: a picture, class names, the answer, how doubtful it is, how each template voted.

    python demo_app.py --run output/my_run/seed1 --root data

It is served to this machine only, and asks nothing of any other. A run that can't be loaded ends with one line on standard error and exit
code 2.
"""
import argparse
import hashlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image

from app.answer import describe
from trainers.common.errors import UserError, run_tool
from trainers.common.image_files import ENDINGS, read_picture, reason
from trainers.common.record_file import Record, shown_name
from trainers.evaluation.doubts import Judge

if TYPE_CHECKING:
    from flask import Flask, Response
    from werkzeug.datastructures import FileStorage

    from trainers.classifier.prompted import PromptedClassifier

HOST = "127.0.0.1"  # no other machine can reach it
PORT = 8000
MAX_BYTES = 16 * 2 ** 20  # of a picture
MAX_REQUEST = 4 * MAX_BYTES  # of all that a browser sends at once
MAX_NAMES = 1000  # classes that are no run's own
KEPT = 8  # pictures of the browser that can be asked about again
EXAMPLES = 8
PIXELS = 384  # of the longer side of a picture on the page
HEADERS = {  # whatever got into the page, the browser would load nothing from elsewhere, and run nothing
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
                               "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with none the browser would not say that a form is the page's own
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # the next run on this port has other examples under the same addresses
}
log = logging.getLogger("demo_app")
Example = tuple[str, str]  # path of a picture, its class name


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a finished training, with results.json")
    parser.add_argument("--root", help="folder of the data sets, for examples out of the run's test images")
    parser.add_argument("--backbone", help="name or file of the run's CLIP, where it is no longer where the run found it")
    parser.add_argument("--max-error", type=float, metavar="SHARE",
                        help="the model is called not sure as often as it takes for at most this share of the other answers to be wrong on "
                             "the run's validation images, as by predict.py; without it answers are not judged")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the page's address ({PORT}); 0 for any that is free")
    return parser.parse_args(arguments)


# ---- what the page is given ----

def class_names(text: str, own: Sequence[str]) -> list[str]:
    """The names of a text, one a line; blank lines don't count.

    Args:
        own: the run's names. Unchanged they are taken as they are: some data sets have a name twice.

    Raises:
        UserError: there are fewer than two, or two that are one and the same to the text encoder.
    """
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if names == own:
        return names
    if len(names) > MAX_NAMES:
        raise UserError(f"there are {len(names)} class names: give at most {MAX_NAMES}")
    if len(names) < 2:
        raise UserError(f"there is {f'only the class name {names[0]!r}' if names else 'no class name'}: give at least two, one a line")
    from trainers.prompting.tokens import readable  # here, since it imports torch
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(readable(name).split()).casefold()  # CLIP's tokenizer looks at neither case nor width of spaces
        if key in seen:
            twin = "" if seen[key] == name else f", once as {seen[key]!r}"
            raise UserError(f"the class name {name!r} is there twice{twin}: remove one")
        seen[key] = name
    return names


class Pictures:
    """The pictures that can be asked about: the examples, and the last ``KEPT`` that the browser has sent.

    Args:
        examples: list of (path, class name).
        background: see ``read_picture``.
    """

    def __init__(self, examples: Sequence[Example], background: str = "white") -> None:
        self.background = background
        self.examples = {f"example-{number}": example for number, example in enumerate(examples, start=1)}
        self.sent: dict[str, bytes] = {}
        self.lock = Lock()

    def keep(self, file: "FileStorage") -> str:
        """Keeps what the browser has sent, a ``werkzeug`` file; returns the key under which it is found.

        Raises:
            UserError: it is too large, or no image.
        """
        content = file.stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{file.filename!r} is larger than {MAX_BYTES // 2 ** 20} MB: choose a smaller picture")
        try:
            read_picture(io.BytesIO(content))
        except UserError as error:
            why = reason(error.__cause__) if isinstance(error.__cause__, Exception) else error
            raise UserError(f"{file.filename!r} is no picture that can be read ({why}): choose a file that ends in {', '.join(ENDINGS)}") from error
        key = hashlib.sha256(content).hexdigest()[:16]
        with self.lock:
            self.sent.pop(key, None)
            self.sent[key] = content
            for oldest in list(self.sent)[:-KEPT]:
                del self.sent[oldest]
        return key

    def open(self, key: str) -> Image.Image:
        """The RGB image of a key.

        Raises:
            UserError: it is not there any more, or can't be read any more.
        """
        if key in self.examples:
            return read_picture(self.examples[key][0], self.background)
        content = self.sent.get(key)
        if content is None:
            raise UserError("this picture is not kept any more: choose it again")
        return read_picture(io.BytesIO(content), self.background)

    def shown(self, key: str) -> bytes:
        """A PNG of at most ``PIXELS`` pixels a side, as bytes; see ``open``."""
        small, buffer = self.open(key), io.BytesIO()
        small.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
        small.save(buffer, format="PNG")
        return buffer.getvalue()


def find_examples(folder: str | Path, record: Record, root: str) -> list[Example]:
    """Test images of a run, from the least to the most doubted in equal steps: at most ``EXAMPLES`` pairs (path, class name).

    There are none, with a warning, where the run was not tested or its data set is not below ``root``.

    Raises:
        UserError: the root is no folder, or the run's predictions can't be read.
    """
    from results.answers import DOUBT
    from results.report.gallery import check_root, find_images
    from results.runs import PREDICTIONS, make_run, read_answers
    check_root(root)
    folder = Path(folder).resolve()
    run = make_run(folder, record, read_answers(folder / PREDICTIONS))
    paths = find_images(run, root) if run.answers else {}
    there = [index for index, name in enumerate(run.known_answers["image"].tolist()) if os.path.isfile(paths.get(name, ""))] if paths else []
    if not there:
        log.warning("No examples: the run was not tested, or its test images are not in %s", root)
        return []
    order = sorted(there, key=run.known_answers[DOUBT].__getitem__)
    steps = numpy.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).round().astype(int)
    images, labels = run.known_answers["image"], run.known_answers["label"]
    return [(paths[images[order[step]]], run.class_name(int(labels[order[step]]))) for step in steps]


# ---- a run to ask ----

class Demo:
    """A run to ask.

    Args:
        classifier: a ``PromptedClassifier``.
        judge: of answers to the run's own classes.
        examples: see ``Pictures``.
    """

    def __init__(self, classifier: "PromptedClassifier", judge: Judge, examples: Sequence[Example] = ()) -> None:
        self.classifier, self.judge = classifier, judge
        self.pictures = Pictures(examples, classifier.background)
        self.classnames = classifier.classnames
        self.with_classes = lru_cache(maxsize=1)(classifier.with_classes)  # each holds a CLIP of its own
        self.lock = Lock()  # one question after another: the model is not shared; all else is answered meanwhile

    @property
    def title(self) -> str:
        record = self.classifier.record
        shots = f", {record['shots']} images a class" if record["shots"] > 0 else ""
        return f"{record['trainer']} on {shown_name(record)}, {record['classes']} classes{shots}, seed {record['seed']}"

    def ask(self, key: str, names: list[str]) -> dict[str, Any]:
        """The answer to a picture among class names, see ``app.answer.describe``.

        Raises:
            UserError: the picture is not there, or the names don't work.
        """
        image, own = self.pictures.open(key), names == self.classnames
        with self.lock:
            try:
                classifier = self.classifier if own else self.with_classes(tuple(names))
            except UserError as error:
                raise UserError(f"these class names can't be asked for: {error}") from error
            answers = classifier.predict(image)
        return describe(answers, self.judge if own else None)


# ---- the web application ----

def make_app(demo: Demo) -> "Flask":
    """The page as a ``Flask`` application.

    Raises:
        UserError: Flask is not installed.
    """
    try:
        from flask import Flask, abort, render_template, request
    except ImportError as error:
        raise UserError("the page needs the package flask: pip install -e '.[app]'") from error
    here = os.path.dirname(os.path.abspath(__file__))
    app = Flask("demo_app", root_path=here, template_folder="app/templates", static_folder="app/static")
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]  # a foreign name that is made to lead here gets nothing

    @app.before_request
    def only_own_forms() -> None:
        """Refuses a form that another site's page sends: a browser says whose it is."""
        if request.method == "POST" and request.headers.get("Origin", request.host_url[:-1]) != request.host_url[:-1]:
            abort(403)

    def page(names: Sequence[str], key: str | None = None, answer: dict[str, Any] | None = None, error: UserError | str | None = None,
             field: str | None = None) -> str:
        if error is not None:
            text = str(error)
            error = text[0].upper() + text[1:] + "."
        return render_template("page.html", demo=demo, names=names, key=key, answer=answer, error=error, field=field, endings=ENDINGS)

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
                raise UserError("there is no picture: choose one" + (", or take an example" if demo.pictures.examples else ""))
            demo.pictures.open(key)
        except UserError as error:
            return page(lines, error=error, field="upload")
        try:
            return page(lines, key, demo.ask(key, class_names(text, demo.classnames)))
        except UserError as error:
            return page(lines, key, error=error, field="classes")

    @app.get("/pictures/<key>")
    def picture(key: str) -> "Response":
        try:
            return app.response_class(demo.pictures.shown(key), mimetype="image/png")
        except UserError:
            abort(404)

    @app.errorhandler(413)
    def too_large(_: Exception) -> tuple[str, int]:
        return page(demo.classnames, error="that is more text than the page takes: give fewer class names", field="classes"), 413

    @app.after_request
    def with_headers(response: "Response") -> "Response":
        response.headers.update(HEADERS)
        return response

    return app


def make_server(app: "Flask", port: int) -> Any:
    """A ``waitress`` server for this machine only.

    Raises:
        UserError: waitress is not installed, or the port can't be had.
    """
    try:
        from waitress import create_server
    except ImportError as error:
        raise UserError("the page needs the package waitress: pip install -e '.[app]'") from error
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # the pictures of a page wait for one another, which is no news
    if not 0 <= port < 2 ** 16:  # waitress takes what is left of it modulo 65536
        raise UserError(f"--port is {port}, it must be between 0, for any that is free, and 65535")
    try:
        return create_server(app, host=HOST, port=port, threads=4, max_request_body_size=MAX_REQUEST)
    except OSError as error:
        raise UserError(f"--port {port} can't be had ({error.strerror}): give another, or 0 for any that is free") from error


def run(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        UserError: the run can't be loaded, or an argument does not work.
    """
    from trainers.classifier.prompted import PromptedClassifier  # here, since it takes seconds: wrong arguments are answered at once
    classifier = PromptedClassifier.load(args.run, args.backbone)
    judge = Judge(args.run, args.max_error)
    examples = find_examples(args.run, classifier.record, args.root) if args.root else []
    server = make_server(make_app(Demo(classifier, judge, examples)), args.port)
    log.info("Open http://%s:%s in a browser; Ctrl-C ends it", HOST, server.effective_port)
    server.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    return run_tool(run, parse_arguments(arguments), log)


if __name__ == "__main__":
    sys.exit(main())
