"""How a sweep is shown: what will run, and how far each job is."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .estimate import duration, estimate
from .grid import Run
from .store import ORDER, Status, Sweep

if TYPE_CHECKING:
    from .executors import Executor

log = logging.getLogger("sweep")

COLOURS = {
    "failed": "red",
    "running": "cyan",
    "done": "green",
    "cancelled": "yellow",
    "stopped": "yellow",
}
NAMED = 2  # data sets of a row that are called by their names
FRAME = 6  # lines of a table that are not rows, and the prompt's


def counts(statuses: Sequence[Status]) -> str:
    """``3 done, 1 running`` in a fixed order."""
    found = Counter(status.state for status in statuses)
    return ", ".join(f"{found[state]} {state}" for state in reversed(ORDER) if found[state])


def render(statuses: Sequence[Status], title: str, most: int | None = None) -> Table:
    """The jobs, those that need a look first.

    Args:
        statuses: list of ``Status``; most: rows at most.
    """
    table = Table(title=f"{title}: {counts(statuses)}", title_justify="left")
    for head in ("job", "state", "runs", "epoch", "ETA"):
        table.add_column(
            head,
            no_wrap=head != "job",
            justify="right" if head in ("runs", "epoch", "ETA") else "left",
        )
    rows = sorted(statuses, key=lambda status: ORDER.index(status.state))
    shown = rows if most is None or len(rows) <= most else rows[:most]
    for status in shown:
        name = Text(status.chain.name.replace("/", " "))
        if status.error:
            name.append(f"\n{status.error}", style="red")
        table.add_row(
            name,
            Text(status.state, style=COLOURS.get(status.state, "")),
            f"{status.runs_done}/{len(status.chain.runs)}",
            status.epoch,
            status.eta,
        )
    if len(shown) < len(rows):
        table.add_row(f"… and {len(rows) - len(shown)} more", "", "", "", "")
    return table


def show_plan(sweep: Sweep, missing: Mapping[str, Sequence[Run]], executor: "Executor") -> None:
    """Prints, on standard error, what a sweep consists of, what of it is done, and what the rest will cost.

    Args:
        missing: name of a chain → its runs that are to be made.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    to_do = {run.folder for runs in missing.values() for run in runs}
    for chain in sweep.chains.values():
        for run in chain.runs:
            recipe = os.path.splitext(os.path.basename(run.recipe))[0]
            groups.setdefault((run.request.protocol, run.trainer, recipe), []).append(run)
    total = sum(map(len, groups.values()))
    table = Table(
        title=f"{sweep.name}: {total} runs in {len(missing)} jobs, {executor.at_once} at once",
        title_justify="left",
    )
    for head in ("protocol", "trainer", "recipe", "data sets", "shots", "seeds", "runs", "done"):
        table.add_column(head)
    for key, runs in groups.items():
        done = sum(run.folder not in to_do for run in runs)
        shots = sorted({run.shots for run in runs if run.shots})
        datasets = list(dict.fromkeys(run.dataset for run in runs))
        named = (
            " ".join(datasets)
            if len(datasets) <= NAMED
            else f"{datasets[0]} and {len(datasets) - 1} more"
        )
        table.add_row(
            *key,
            named,
            " ".join(map(str, shots)),
            " ".join(map(str, sorted({run.seed for run in runs}))),
            str(len(runs)),
            str(done),
        )
    Console(stderr=True).print(table)
    seconds, unknown = estimate(filter(None, missing.values()), executor.at_once)
    log.info(
        "%d runs to make; estimate: %s",
        len(to_do),
        estimate_line(seconds, len(to_do) - unknown, unknown),
    )


def estimate_line(seconds: float, known: int, unknown: int) -> str:
    """How long it will take; known, unknown: numbers of runs with and without a known time."""
    if not known:
        return "unknown, none like them is done" if unknown else "nothing"
    more = f", and {unknown} of which none like them is done" if unknown else ""
    return (
        f"at least {duration(seconds)} for {known} runs, by what they took with other seeds{more}"
    )


def show(statuses: Sequence[Status], title: str) -> None:
    """Prints all jobs once, on standard output."""
    console = Console()
    console.print(render(statuses, title))
    for status in statuses:
        if status.state == "failed" and status.log:
            console.print(
                f"log of {status.chain.name}: {status.log}", soft_wrap=True, highlight=False
            )


class Display:
    """Shows the jobs while they run: on a terminal one table that renews itself, elsewhere a line for each change."""

    def __init__(self, title: str) -> None:
        self.title, self.console = title, Console(stderr=True)
        self.before: dict[str, str] = {}
        self.live = (
            Live(console=self.console, auto_refresh=False, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def update(self, statuses: Sequence[Status]) -> None:
        if self.live:
            self.live.update(
                render(statuses, self.title, max(1, self.console.height - FRAME)), refresh=True
            )
        for status in statuses if not self.live else ():
            name = status.chain.name
            if self.before.get(name, "waiting") != status.state:
                log.info(
                    "%s: %s%s", name, status.state, f": {status.error}" if status.error else ""
                )
            self.before[name] = status.state
