"""The loop of the command that runs a sweep: submits what waits, and watches until nothing is left."""
import contextlib
import logging
import os
import signal
import time

from runs import is_done, summary
from trainers.checkpoint import write_text
from trainers.errors import UserError
from trainers.run_record import remove_record

from .store import is_there
from .table import Display, counts

log = logging.getLogger("sweep")

UNFINISHED = ("waiting", "queued", "running")


def missing_runs(chain):
    """The runs of a chain that are to be made; a test of prompts that have been trained anew since loses its record, which marks it as one.

    Raises:
        UserError: a run's settings can't work, or its folder holds a run with others.
    """
    missing = [run for run in chain.runs if not is_done(run.job, run.request.wanted_config(run.job))]
    for run in missing:
        remove_record(run.job.folder)
    return missing


def statuses_of(sweep, executor, names=None):
    """``Status`` of the chains, in their order."""
    alive = executor.alive()
    return [sweep.status(name, alive.get(name)) for name in names or sweep.chains]


def drive(sweep, executor, names):
    """Has the chains made that are not done.

    Raises:
        UserError: some failed, or this command was interrupted; the message says how to go on. The others are made all the same.
    """
    again = f"sweep.py retry {sweep.name}"
    with terminated_as_interrupted(), Display(sweep.name) as display:
        try:
            statuses = watch(sweep, executor, names, display)
        except KeyboardInterrupt:
            told = executor.interrupt(list(executor.alive()))
            if told:
                log.info("Interrupted: %d jobs write a checkpoint and end", len(told))
            while set(told) & set(executor.alive()):
                time.sleep(executor.interval)
            for name in told:
                if not sweep.outcome(name):  # it had not begun
                    sweep.forget(name)
            raise UserError("interrupted; the same command goes on with what is missing" if told else
                            f"interrupted; the jobs that are submitted go on, the same command or sweep.py status {sweep.name} shows how far they "
                            f"are, and sweep.py cancel {sweep.name} ends them") from None
    log.info("%s: %s", sweep.name, counts(statuses))
    failed = [status for status in statuses if status.state == "failed"]
    if failed:
        raise UserError(f"{len(failed)} of {len(statuses)} jobs failed, the first: {failed[0].chain.name}: {failed[0].error} "
                        f"(log: {failed[0].log}); {again} makes them again")


def watch(sweep, executor, names, display):
    """The chains' statuses when none of them is to be made or under way any more."""
    while True:
        alive = executor.alive()
        statuses = [sweep.status(name, alive.get(name)) for name in names]
        display.update(statuses)
        if not any(status.state in UNFINISHED for status in statuses):
            return statuses
        waiting = [status.chain.name for status in statuses if status.state == "waiting"]
        if waiting:
            executor.submit(waiting, alive)
        time.sleep(executor.interval)


@contextlib.contextmanager
def terminated_as_interrupted():
    """SIGTERM does what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def collect(sweep, protocols=None):
    """The tables of the sweep's protocols as one text; they are also kept in its folder, and few-shot curves beside the runs.

    Raises:
        UserError: no run is done.
    """
    places = {}
    for chain in sweep.chains.values():
        for run in chain.runs:
            places.setdefault(run.request.output, (run.request.protocol, []))[1].append(run)
    texts = []
    for output, (protocol, runs) in places.items():
        if any(map(is_there, runs)):
            text, curves = summary(protocol, output)
            write_text(os.path.join(sweep.folder, "tables", f"{os.path.basename(output)}.txt"), text)
            texts.append("\n".join([f"{output}\n\n{text}", *(f"curve: {path}\n" for path in curves)]))
    if not texts:
        raise UserError(f"no run of the sweep {sweep.name} is done yet: sweep.py status {sweep.name} shows how far it is")
    return "\n".join(texts)
