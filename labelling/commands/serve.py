"""Serves a trained run: a page to try it on, and answers for programs and for Label Studio.

    cdc-serve --run output/my_run/seed1 --root my_folder

The page shows a picture, the answer among class names, its uncertainty, and each template's vote. Programs send
pictures to /predict and get what cdc-predict --json prints; Label Studio takes the address as an ML backend.

It is served to this machine only, unless --host says otherwise, and asks nothing of any other. A run that
can't be loaded ends with one line on standard error and exit code 2.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from trainers.common.errors import UserError, run_tool
from trainers.common.imports import importing

from ..rules import Wanted, rule_of
from ..serve import HOST
from .arguments import add_run_arguments, share_or_best
from .lists import add_version

PORT = 8000
TOKEN = "CDC_TOKEN"  # the environment variable
log = logging.getLogger("serve")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    add_version(parser)
    add_run_arguments(parser)
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder of the pictures: programs may name files below it, and the page shows examples from "
        "the run's test images",
    )
    parser.add_argument(
        "--max-error",
        type=share_or_best,
        metavar="SHARE",
        help="give no label where the model is not sure, so that at most this share of the labels "
        "given is wrong, as in predict.py; without it no answer is called unsure",
    )
    parser.add_argument(
        "--train-after",
        type=int,
        default=0,
        metavar="N",
        help="after each N annotations from Label Studio the run's next round is trained, while the former one "
        "answers; needs --root (default: 0, never)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        help=f"port of the page's address; 0 takes any free one (default: {PORT})",
    )
    parser.add_argument(
        "--host",
        default=HOST,
        metavar="ADDRESS",
        help="this machine's address to serve other machines at, such as 0.0.0.0 for all; they need the "
        f"token that the environment variable {TOKEN} holds (default: {HOST}, this machine only)",
    )
    return parser.parse_args(arguments)


def check_arguments(args: argparse.Namespace, token: str) -> None:
    """Check what can be checked before a run is loaded; token: that other machines have to send.

    Raises:
        UserError: an argument does not work.
    """
    if args.host != HOST and not token:
        raise UserError(
            f"--host {args.host} lets other machines ask: set the environment variable {TOKEN} to a secret that they "
            "send, such as from: openssl rand -hex 16"
        )
    if args.root and not os.path.exists(args.root):
        raise UserError(f"--root {args.root} is not a folder")
    if args.train_after and not args.root:
        raise UserError("--train-after learns from pictures below --root: give that folder, too")


def run(args: argparse.Namespace) -> None:
    """Serve the run until Ctrl-C. If its newest round was killed, serve the round before while that one
    goes on.

    Raises:
        UserError: the run can't be loaded, or an argument does not work.
    """
    token = os.environ.get(TOKEN, "")
    check_arguments(args, token)
    root = args.root or ""
    # here, since it takes seconds: wrong arguments are answered at once
    with importing():
        try:
            from ..serve.page import make_app, make_server
        except ImportError as error:
            raise UserError(
                f"cdc-serve needs flask and waitress ({error}): pip install flask waitress"
            ) from error
        from ..classifier import PromptedClassifier
        from ..rounds import newest_finished
        from ..serve.demo import Demo, find_examples
        from ..serve.rounds import Rounds

    wanted = Wanted(args.max_error, confidence=args.confidence)

    def load() -> PromptedClassifier:
        folder = newest_finished(args.run)
        rule = rule_of(folder, wanted)
        return PromptedClassifier.of_run(folder, args.backbone, rule, wanted.withholds, args.device)

    folder = newest_finished(args.run)
    if folder != args.run:
        log.warning("The newest round of %s is not finished: %s answers", args.run, folder)
    classifier = load()
    examples = find_examples(folder, classifier.record, root) if root else []
    # a file that names pictures is the root of a run on them
    demo = Demo(
        classifier, examples, os.path.dirname(root) or "." if os.path.isfile(root) else root
    )
    rounds = Rounds(demo, args.run, load, args.train_after) if args.train_after else None
    server = make_server(make_app(demo, token, args.host, rounds), args.port, args.host)
    if rounds is not None and folder != args.run:
        log.info("The round goes on: %s", rounds.begin())
    log.info("Open http://%s:%s in a browser; Ctrl-C ends it", args.host, server.effective_port)
    server.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    return run_tool(run, parse_arguments(arguments), log)


if __name__ == "__main__":
    sys.exit(main())
