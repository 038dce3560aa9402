"""A ``python`` whose commands are killed: ``train.py`` and ``predict.py`` are killed with SIGKILL at moments drawn
at random, and then run to their end; other programs are run as they are.

    killed.py train.py --images …

A moment is a file of the working folder that is opened, renamed or removed, Python's own left out. ``KILLED`` lists
the kills.
"""

import os
import random
import runpy
import signal
import subprocess
import sys
from itertools import count

COMMANDS = ("train.py", "predict.py")
KILLED = "killed.txt"
KILLS = 2  # of each command, at most
MOMENTS = 400  # among which they are drawn
EVENTS = ("open", "os.rename", "os.remove")
UNTIL = "--until"


def main(arguments):
    if arguments[0] == UNTIL:
        run_until(int(arguments[1]), arguments[2:])
    if arguments[0] in COMMANDS:
        draw = random.Random(" ".join(arguments))
        for _ in range(KILLS):
            moment = draw.randint(1, MOMENTS)
            command = [sys.executable, __file__, UNTIL, str(moment), *arguments]
            if subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL:
                with open(KILLED, "a") as file:
                    file.write(f"{moment} {' '.join(arguments)}\n")
    os.execv(sys.executable, [sys.executable, *arguments])


def run_until(moment, arguments):
    """Run a program, and end with it at the given moment."""
    passed = count(1)

    def hook(event, facts):
        if event in EVENTS and is_own(facts[0]) and next(passed) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.argv = arguments
    sys.path[0] = os.getcwd()
    sys.addaudithook(hook)
    runpy.run_path(arguments[0], run_name="__main__")
    sys.exit()


def is_own(path):
    """Whether a path is a file of the working folder, and none of Python's."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    place = os.path.abspath(os.fspath(path))
    return place.startswith(os.getcwd()) and not place.endswith((".py", ".pyc", ".so"))


if __name__ == "__main__":
    main(sys.argv[1:])
