"""The tables of a sweep, each protocol's once its runs are done."""

import logging
import os

from protocols.runs import summary
from trainers.common.errors import UserError
from trainers.common.files import write_text

from .grid import Chain, Run
from .store import Sweep, is_there

log = logging.getLogger("sweep")


def outputs(sweep: Sweep) -> dict[str, tuple[str, list[Run]]]:
    """Folder of a protocol's runs → the protocol, and those of its runs that the sweep asks for."""
    found: dict[str, tuple[str, list[Run]]] = {}
    for chain in sweep.chains.values():
        for run in chain.runs:
            found.setdefault(run.request.output, (run.request.protocol, []))[1].append(run)
    return found


def make_table(sweep: Sweep, protocol: str, output: str) -> str:
    """A protocol's tables, which are also kept in the sweep's folder, and for few-shot the paths of its curves, which lie beside the runs.

    Raises:
        UserError: no run of it is done.
    """
    text, curves = summary(protocol, output)
    text = "".join([text, *(f"curve: {path}\n" for path in curves)])
    write_text(os.path.join(sweep.folder, "tables", f"{os.path.basename(output)}.txt"), text)
    return text


def collect(sweep: Sweep) -> str:
    """The tables of all protocols of which a run is done, as one text.

    Raises:
        UserError: no run is done.
    """
    found = outputs(sweep)
    texts = [
        f"{output}\n\n{make_table(sweep, protocol, output)}"
        for output, (protocol, runs) in found.items()
        if any(map(is_there, runs))
    ]
    if not texts:
        raise UserError(
            f"no run of the sweep {sweep.name} is done yet: sweep.py status {sweep.name} shows how far it is"
        )
    return "\n".join(texts)


def collect_complete(sweep: Sweep, chain: Chain) -> None:
    """What the job that makes the last run of a protocol does: its tables and curves, whether or not anybody watches the sweep."""
    for output, (protocol, runs) in outputs(sweep).items():
        if any(run.request.output == output for run in chain.runs) and all(map(is_there, runs)):
            try:
                make_table(sweep, protocol, output)
            except UserError as error:  # a run that the sweep didn't ask for may be the reason
                log.warning("no table of %s: %s", output, error)
