"""Counts the places where lines were saved at the reader's cost, and says which are too many.

    python tools/squeezes.py

- ``a, b = x, y`` whose halves have nothing to do with each other: at most 6 in 1,000 statements,
- a comma in place of a semicolon: ``x.copy_(a), y.copy_(b)``,
- arithmetic with a truth value: ``" is missing" * isinstance(error, KeyError)``,
- a tuple or list splatted into a call: ``log.info("%s %s", *(a, b))``.

Tests are not looked at. The exit code is 1 where there are too many.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# folders that are looked through; "": the commands at the top
PLACES = [
    "",
    *"analysis app benchmarks dassl-lite datasets docs protocols results scripts tools trainers".split(),
]
ASSIGNMENTS = "several assignments in one statement"
COMMA = "a comma in place of a semicolon"
ARITHMETIC = "arithmetic with a truth value"
SPLAT = "a tuple splatted into a call"
MOST = {ASSIGNMENTS: 6, COMMA: 0, ARITHMETIC: 0, SPLAT: 0}  # in 1,000 statements


def kinds(node: ast.AST) -> Iterator[str]:
    """What is squeezed in a node, apart from the nodes in it."""
    if isinstance(node, ast.Assign) and is_unrelated(node):
        yield ASSIGNMENTS
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple):
        yield COMMA
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        if is_truth(node.left) or is_truth(node.right):
            yield ARITHMETIC
    if isinstance(node, ast.Call):
        for argument in node.args:
            if isinstance(argument, ast.Starred) and isinstance(
                argument.value, (ast.Tuple, ast.List)
            ):
                yield SPLAT


def is_unrelated(node: ast.Assign) -> bool:
    """Whether it is ``a, b = x, y``, and neither a swap nor an update of what it reads."""
    target = node.targets[0]
    if not isinstance(target, ast.Tuple) or not isinstance(node.value, ast.Tuple):
        return False
    return not names_in(target) & names_in(node.value)


def names_in(node: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - {"self"}


def is_truth(node: ast.expr) -> bool:
    """Whether an expression is plainly a truth value."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "bool")
    return isinstance(node, (ast.Compare, ast.BoolOp))


def main() -> int:
    """Exit code: 0, or 1 where there are too many."""
    files = [
        path
        for place in PLACES
        for path in sorted((REPOSITORY / place).rglob("*.py") if place else REPOSITORY.glob("*.py"))
    ]
    places: dict[str, list[str]] = defaultdict(list)
    statements = 0
    for path in files:
        name = path.relative_to(REPOSITORY).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.stmt):
                statements += 1
            for kind in kinds(node):
                assert isinstance(node, (ast.stmt, ast.expr))
                places[kind].append(f"{name}:{node.lineno}")
    exit_code = 0
    for kind, found in places.items():
        share = 1000 * len(found) / statements
        if share > MOST[kind]:
            exit_code = 1
            print(f"{kind}: {share:.1f} in 1,000 statements, at most {MOST[kind]} are taken:")
            print("\n".join(f"    {place}" for place in found))
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
