"""Counts the places where lines, or types, were saved at the reader's cost, and says which are too
many.

    python tools/squeezes.py

- ``a, b = x, y`` whose halves have nothing to do with each other: at most 6 in 1,000 statements,
- a comma in place of a semicolon: ``x.copy_(a), y.copy_(b)``,
- arithmetic with a truth value: ``" is missing" * isinstance(error, KeyError)``,
- a tuple or list splatted into a call: ``log.info("%s %s", *(a, b))``,
- ``Any``, or a name that stands for it, in the signature of a public function of ``TYPED``.

Tests are not looked at. The exit code is 1 where there are too many.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
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
ANY = "Any in a public signature"
MOST = {ASSIGNMENTS: 6, COMMA: 0, ARITHMETIC: 0, SPLAT: 0, ANY: 0}  # in 1,000 statements
TYPED = ("trainers/", "dassl-lite/")  # which others import
STORED = "Stored"  # what a file stores, which has no type; see trainers/common/readers.py
TORCHS = {"state_dict", "load_state_dict"}  # are overridden as torch has them


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


def aliases_of_any(trees: Iterable[ast.Module]) -> set[str]:
    """``Any``, and the names of types that are made of it."""
    found = {"Any"}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and found & names_in(node.value):
                found |= names_in(node.targets[0]) - {STORED}
    return found


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """The functions and methods of a module, or a class, that others may call."""
    for part in ast.iter_child_nodes(node):
        if not isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            continue
        if part.name.startswith("_") and not part.name.startswith("__"):
            continue
        if isinstance(part, ast.ClassDef):
            yield from public_functions(part)
        elif part.name not in TORCHS:
            yield part


def names_in_signature(function: ast.FunctionDef) -> set[str]:
    parts = [part.annotation for part in ast.walk(function.args) if isinstance(part, ast.arg)]
    written = [ast.unparse(part) for part in [*parts, function.returns] if part is not None]
    return set(re.findall(r"\w+", " ".join(written)))  # those in quotes, too


def main() -> int:
    """Exit code: 0, or 1 where there are too many."""
    files = [
        path
        for place in PLACES
        for path in sorted((REPOSITORY / place).rglob("*.py") if place else REPOSITORY.glob("*.py"))
    ]
    trees = {
        path.relative_to(REPOSITORY).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in files
    }
    untyped = aliases_of_any(tree for name, tree in trees.items() if name.startswith(TYPED))
    places: dict[str, list[str]] = defaultdict(list)
    statements = 0
    for name, tree in trees.items():
        if name.startswith(TYPED):
            for function in public_functions(tree):
                if untyped & names_in_signature(function):
                    places[ANY].append(f"{name}:{function.lineno}")
        for node in ast.walk(tree):
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
