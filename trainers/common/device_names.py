"""The names of devices; without torch, so that a wrong one is answered at once."""

import re

from .errors import UserError

# of --device
HELP = "where to compute: auto, cpu, cuda, cuda:1 or mps, Apple's, untried (default: auto, a GPU if there is one)"
NAMES = re.compile("auto|(cpu|cuda|mps)(:[0-9]+)?")


def check_device_name(name: str) -> None:
    """Check that a name is a device's, whether or not this machine has the device.

    Raises:
        UserError: it is not.
    """
    if not NAMES.fullmatch(name):
        raise UserError(f"the device is {name!r}: give auto, cpu, cuda, cuda:1 or mps")
