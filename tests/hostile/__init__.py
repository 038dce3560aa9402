"""Hostile cases of every kind, each in a process of its own with a limit of memory and of time.

A kind is a table, name → ``Case``: of pictures, of what a run leaves, of words that somebody types.
What is done ends in a result or in one line for the user, whatever it is given.
"""

import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.limits import Outcome, limited
from tests.runs import contents_of

MEGABYTES = 2000  # that a case may hold beyond what there was: docs/reliability.md
ADDRESSES = 6000  # megabytes that a case gets: beyond, it ends here and not by the system
SECONDS = 120
LONGEST = 4000  # characters of a line for the user
CODES = (0, 1, 2, 75)  # of a command


class Case(NamedTuple):
    """Something to try.

    Attributes:
        do: what is done; a command's is ``typed``.
        holds: what the result has to be; None: whatever it is. A ``UserError``'s text counts as
            a result where ``may_refuse``.
        may_refuse: whether a line for the user is an answer too.
        room: megabytes of addresses that it gets; then ``MemoryError`` is an answer too.
    """

    do: Callable[[], Any]
    holds: Callable[[Any], bool] | None = None
    may_refuse: bool = True
    room: int | None = None


class Said(NamedTuple):
    """What a command has said: its exit code, and what is on standard output and error."""

    code: int
    out: str
    err: str


def typed(main: Callable[[list[str]], int], *words: object) -> Callable[[], Said]:
    """Calls a command's ``main``, as if the words were typed."""

    def do() -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([*map(str, words)])
            except SystemExit as ended:  # argparse's
                code = ended.code
        return Said(code or 0, out.getvalue(), err.getvalue())

    return do


def fault(case: Case) -> str:
    """Why a case has fallen; "" where it has not."""
    outcome = limited(case.do, megabytes=case.room or ADDRESSES, seconds=SECONDS)
    return fault_of(case, outcome)


def fault_of(case: Case, outcome: Outcome) -> str:
    if outcome.megabytes > MEGABYTES:
        return f"it took {outcome.megabytes:.0f} MB"
    if outcome.name == "MemoryError" and case.room is not None:
        return ""
    if outcome.name == "UserError":
        return line_fault(outcome.message) if case.may_refuse else outcome.message
    if outcome.name:
        return outcome.error
    if isinstance(outcome.value, Said):
        return said_fault(case, outcome.value)
    if case.holds is not None and not case.holds(outcome.value):
        return f"the result is {outcome.value!r}"[:LONGEST]
    return ""


def said_fault(case: Case, said: Said) -> str:
    errors = [line for line in said.err.splitlines() if re.match(r"(\S+: )?error: ", line)]
    if "Traceback" in said.err or said.code not in CODES:
        return f"exit code {said.code}: {said.err[-LONGEST:]}"
    if (said.code == 2) != (len(errors) == 1):
        return f"exit code {said.code} with {len(errors)} lines of error: {said.err[-LONGEST:]}"
    if not case.may_refuse and said.code:
        return said.err[-LONGEST:]
    if case.holds is not None and not said.code and not case.holds(said):
        return f"the result is {said!r}"[:LONGEST]
    return next(filter(None, map(line_fault, errors)), "")


def line_fault(line: str) -> str:
    if "\n" in line or len(line) > LONGEST or not line.strip():
        return f"{len(line)} characters for the user: {line[:LONGEST]!r}"
    return ""


def fallen(cases: dict[str, Case], kept: Path) -> dict[str, str]:
    """Name → why, of the cases that have fallen; ``kept``: a folder of somebody's files, which none
    may change, and which every case can reach as ``../kept`` from where it works."""
    before = contents_of(kept)
    found = {}
    for name, case in cases.items():
        if why := fault(case):
            found[name] = why
        if contents_of(kept) != before:
            raise AssertionError(f"{name} has changed somebody's files in {os.fspath(kept)}")
    return found
