"""Trains or tests one run: the command that CoOp's users know, arguments unchanged.

    python train.py --trainer CDC --config-file configs/trainers/CDC/tiny.yaml \
        --dataset-config-file configs/datasets/openmoji.yaml --root data --seed 1 \
        --output-dir output/my_run
    # a folder of class folders
    python train.py --trainer CDC --images my_folder

Input that can't work ends with one line on standard error and exit code 2. A run that is killed
goes on by the same command, to the same numbers; one that Ctrl-C, SIGTERM or SIGUSR1 (Slurm's
warning) asks to stop ends at once with exit code 75, which means: start it again. A finished run is
done already.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import logging
import sys
import threading
from collections.abc import Sequence

from trainers.common.console import log_to_stdout
from trainers.common.errors import exit_code
from trainers.common.imports import importing
from trainers.common.interruption import end_with_input, interruptible


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of a run: 0, 2 with one line on standard error for a user's mistake, or 75 if
    a signal ended it."""

    def command() -> None:
        # imports take seconds; a signal ends the run during them as it does later
        from labelling.checkout.arguments import asked_of_images
        from labelling.request import add_arguments
        from protocols.command_line import parse_arguments

        args = parse_arguments(
            arguments, add_arguments
        )  # mistakes at first sight are answered at once
        asked = asked_of_images(args) if args.images else None
        if args.with_parent:
            threading.Thread(target=end_with_input, daemon=True).start()
        if asked is not None:
            from labelling.commands.train import make

            log_to_stdout()
            make(asked, args, "python predict.py", [logging.getLogger()], [args.resume])
        else:
            with importing():
                from labelling.checkout import image_folder  # noqa: F401  (registers ImageFolder)
                from protocols import training

            training.run(args)

    with interruptible():
        return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
