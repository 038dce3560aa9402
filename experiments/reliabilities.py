"""Whether CDC gains by a reliability of its own for each template, in place of one for all.

    # trains CDC on the first fold of the suite's tasks that the file does not hold yet
    python -m experiments.reliabilities --results experiments/reliabilities.jsonl
    python -m experiments.reliabilities --results experiments/reliabilities.jsonl --show

Reliabilities are fitted to the labels of every other held-out image, as cross_validate.py fits CDC's:
log ω_m = c + d_m, where the deviations d sum to 0, c is within ``fitted_factor``'s bounds, and each
independent direction of d has a normal prior with mean 0 and standard deviation τ; τ = 0 is one
reliability for all. The ω with the greatest posterior is taken. Which τ the fitted images ask for
is told by their labels' likelihood with d integrated out (Laplace's approximation); the table has
its logarithm's sum over tasks. All else is measured on the other held-out images and on the other
half's classes.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.optimize import minimize
from torch import Tensor

from experiments.comparison import Fields, difference_table, differences
from experiments.cross_validate import logits_of, pictures_of, read_rows, tasks_below, train
from experiments.folds import split
from results.rows import harmonic_mean
from trainers.cdc import CDCMethod
from trainers.common.errors import UserError, run_tool
from trainers.evaluation.prediction import calibration, percent_right
from trainers.maths.evidence import dempster

log = logging.getLogger("reliabilities")

STRENGTHS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # τ
SEED = 1


def fitted_each(evidence: Tensor, labels: Tensor, deviation: float) -> tuple[Tensor, float]:
    """The templates' reliabilities with the greatest posterior, and the log likelihood of the labels
    with the deviations integrated out.

    Args:
        evidence: (M, N, K), logarithms; labels: (N,); deviation: τ.

    Returns:
        ω, (M,), and nats.
    """
    evidence = evidence.double()
    templates = len(evidence)
    # of d, (M − 1, M); none where there is one reliability for all
    directions = torch.from_numpy(helmert(templates))[: None if deviation else 0]
    free = len(directions)

    def weights_at(place: Tensor) -> Tensor:
        """ω, (M,), at (c, coordinates of d)."""
        return (place[0] + place[1:] @ directions).exp()

    def loss_of(place: Tensor) -> Tensor:
        """−log of likelihood times prior."""
        probability = dempster(evidence, weights_at(place)).log_probability
        loss = -probability.gather(-1, labels[:, None]).sum()
        if free:
            scaled = place[1:] / deviation
            loss = (
                loss + scaled.square().sum() / 2 + free * math.log(deviation * math.sqrt(math.tau))
            )
        return loss

    def value_and_gradient(place: NDArray[numpy.float64]) -> tuple[float, NDArray[numpy.float64]]:
        at = torch.from_numpy(place).requires_grad_()
        loss = loss_of(at)
        (gradient,) = torch.autograd.grad(loss, at)
        return loss.item(), gradient.numpy()

    bounds = [(math.log(0.2 / templates), math.log(2 / templates)), *[(None, None)] * free]
    start = [-math.log(templates), *[0.0] * free]
    found = minimize(value_and_gradient, start, jac=True, bounds=bounds)
    best = torch.from_numpy(found.x)
    curvature = torch.autograd.functional.hessian(loss_of, best)[1:, 1:]
    integral = (free * math.log(math.tau) - torch.logdet(curvature).item()) / 2 if free else 0.0
    return weights_at(best), integral - found.fun


def lines_of(task: str, evidence: dict[str, Tensor], labels: dict[str, Tensor]) -> Iterator[Fields]:
    """A line for each τ, with cross_validate.py's fields.

    Args:
        evidence: ``base``, of the held-out images of the trained half, and ``new``; (M, N, K).
    """
    fitted_to = evidence["base"][:, ::2], labels["base"][::2]
    asked = {"base": evidence["base"][:, 1::2], "new": evidence["new"]}
    truth = {"base": labels["base"][1::2], "new": labels["new"]}
    for deviation in STRENGTHS:
        weights, likelihood = fitted_each(*fitted_to, deviation)
        row: Fields = {"log_likelihood": likelihood}
        for half, votes in asked.items():
            probability = dempster(votes.double(), weights).log_probability.exp()
            measures = calibration(probability, truth[half])
            row[half] = percent_right(probability.argmax(dim=1), truth[half])
            row |= {f"{name}_fit_{half}": measures[name] for name in ("ece", "nll")}
        row["H"] = harmonic_mean((row["base"], row["new"]))
        numbers = {name: round(float(value), 4) for name, value in row.items()}
        yield {"setting": f"{deviation:g}", "task": task, "seed": SEED, **numbers}


def trained_evidence(task: str, root: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """CDC's log evidence and the labels, of the held-out images of its first fold and of the other
    half's."""
    pictures = pictures_of(task, root)
    _, held_out = split(pictures.trained.labels, SEED)
    images = {"base": pictures.trained.part(held_out), "new": pictures.other}
    evidence: dict[str, Tensor] = {}
    for (half, shown), trainer in zip(images.items(), train({}, task, SEED, pictures, root)):
        method = trainer.model
        assert isinstance(method, CDCMethod)
        evidence[half] = method.learner.evidence(logits_of(method, shown.centre["plain"])).detach()
    return evidence, {half: shown.labels for half, shown in images.items()}


def compare(args: argparse.Namespace) -> None:
    """The whole command."""
    done = {row["task"] for row in read_rows(args.results)}
    for task in [] if args.show else args.tasks or tasks_below(args.root):
        if task not in done:
            lines = lines_of(task, *trained_evidence(task, args.root))
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            with open(args.results, "a", encoding="utf-8") as file:
                file.write(text)
    rows = read_rows(args.results)
    if not rows:
        raise UserError(f"{args.results} has no result: leave out --show")
    names = [f"{deviation:g}" for deviation in STRENGTHS]
    print(difference_table(differences([{"name": name} for name in names], rows)), end="\n\n")
    for name in names:
        total = sum(row["log_likelihood"] for row in rows if row["setting"] == name)
        print(f"τ = {name}: log likelihood of the fitted labels {total:.2f}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--root", default="data")
    parser.add_argument("--tasks", nargs="+", help="for all that are there")
    parser.add_argument("--show", action="store_true", help="print the table and train nothing")
    return run_tool(compare, parser.parse_args(argv), log)


if __name__ == "__main__":
    sys.exit(main())
