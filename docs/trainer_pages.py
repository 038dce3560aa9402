"""The documentation's pages of the trainers, made of the live code when the site is built: what a
trainer is, its recipes and its settings.
"""

import inspect
from collections.abc import Iterator
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType

from trainers import METHODS, method_class

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs/trainers"


def write_pages(folder: Path) -> None:
    """Writes a page per file of trainers, and an index of them."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.md"):
        path.unlink()
    names_of: dict[str, list[str]] = {}
    for name, module in METHODS.items():
        names_of.setdefault(module, []).append(name)
    rows = []
    for names in names_of.values():
        module = module_of(names[0])
        file = module.__name__.rpartition(".")[2]
        (folder / f"{file}.md").write_text(page(module, names), encoding="utf-8")
        rows.append(f"| [{', '.join(names)}]({file}.md) | {first_sentence(module)} |\n")
    index = "# Trainers\n\n| trainer | what it is |\n|---|---|\n" + "".join(rows)
    (folder / "index.md").write_text(index, encoding="utf-8")


def module_of(name: str) -> ModuleType:
    return import_module(METHODS[name], "trainers")


def first_sentence(module: ModuleType) -> str:
    """First sentence of the docstring, without the name before its colon."""
    text = " ".join((inspect.getdoc(module) or "").partition("\n\n")[0].split())
    sentence = text.partition(": ")[2] or text
    return sentence.partition(". ")[0].replace("``", "`").replace("|", r"\|").rstrip(".") + "."


def page(module: ModuleType, names: list[str]) -> str:
    """The page of the trainers of one file."""
    file = f"{module.__name__.replace('.', '/')}.py"
    parts = [
        f"# {', '.join(names)}\n",
        f"[{file}](../../{file}); [what was compared with the authors' code](../faithfulness.md).\n",
        f"```{{eval-rst}}\n.. automodule:: {module.__name__}\n   :no-members:\n```\n",
    ]
    for name in names:
        parts.append(f"## Recipes of {name}\n")
        parts += map(recipe, sorted((CONFIGS / name).glob("*.yaml")))
        parts.append(f"## Settings of {name}\n")
        parts.append(
            f"In `TRAINER.{name.upper()}`; a recipe's values come on top of the defaults.\n"
        )
        parts.append("| setting | default | takes | what it is |\n|---|---|---|---|")
        for key, default, takes, says in settings(name):
            row = (f"`{key}`", f"`{default}`", takes, says)
            parts.append("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |")
        parts.append("")
    return "\n".join(parts)


def recipe(path: Path) -> str:
    """A recipe and its head: what it reproduces, costs and should reach."""
    lines = path.read_text("utf-8").splitlines()
    head = [line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    return f"- [{path.stem}](../../{path.relative_to(REPOSITORY).as_posix()}): {' '.join(head)}\n"


def settings(name: str) -> Iterator[tuple[str, str, str, str]]:
    """Of each setting: its key, its default, what it takes, and what it is."""
    for key, setting in method_class(name).declared.items():
        if isinstance(setting.takes, list):
            takes = ", ".join(f"`{value!r}`" for value in setting.takes)
        else:
            takes = ", ".join(f"{bound} {number:g}" for bound, number in setting.takes.items())
        yield key, repr(setting.default), takes, setting.says
