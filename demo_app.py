"""Shows a page in the browser on which a trained run can be tried.

It shows a picture, the answer among class names, how uncertain it is, and how each template voted.

    python demo_app.py --run output/my_run/seed1 --root data

It is served to this machine only, and asks nothing of any other. A run that can't be loaded ends
with one line on standard error and exit code 2.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import sys
from collections.abc import Sequence

from labelling.commands.arguments import add_run_arguments, share_or_best
from labelling.page.demo import Demo, among_classes, find_examples
from labelling.page.page import HOST, make_app, make_server
from labelling.rules import Wanted, rule_of
from trainers.common.errors import run_tool
from trainers.common.imports import importing

PORT = 8000
log = logging.getLogger("demo_app")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    add_run_arguments(parser)
    parser.add_argument(
        "--root", help="folder of the data sets, for examples from the run's test images"
    )
    parser.add_argument(
        "--max-error",
        type=share_or_best,
        metavar="SHARE",
        help="give no label where the model is not sure, so that at most this share of the labels "
        "given is wrong, as in predict.py; without it no answer is called unsure",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        help=f"port of the page's address; 0 takes any free one (default: {PORT})",
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        UserError: the run can't be loaded, or an argument does not work.
    """
    # here, since it takes seconds: wrong arguments are answered at once
    with importing():
        from labelling.classifier import PromptedClassifier

    wanted = Wanted(args.max_error, confidence=args.confidence)
    rule = rule_of(args.run, wanted)
    classifier = PromptedClassifier.of_run(args.run, args.backbone, rule, wanted.withholds)
    answer = among_classes(classifier)
    examples = find_examples(args.run, classifier.record, args.root) if args.root else []
    demo = Demo(classifier, answer, examples)
    server = make_server(make_app(demo), args.port)
    log.info("Open http://%s:%s in a browser; Ctrl-C ends it", HOST, server.effective_port)
    server.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    return run_tool(run, parse_arguments(arguments), log)


if __name__ == "__main__":
    sys.exit(main())
