"""Serves a trained run: a page to try it on, and answers for programs and for Label Studio.

    python serve.py --run output/my_run/seed1 --root my_folder

It is ``cdc-serve`` in a checkout, see ``labelling/commands/serve.py``.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import sys

from labelling.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
