"""The documentation's pages of the trainers, made of the live code when the site is built: a
trainer's description, its published and its measured numbers, its recipes and its settings.
"""

import csv
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType

from results.published import read_published
from trainers import METHODS, method_class

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
RECIPES = REPOSITORY / "configs/trainers"
MODEL_CARD = "trainers/prompting/weights/tiny.md"
MEASURED_PAGE = DOCS / "data/base_to_new.csv"
# a path in running text: neither in a link, nor an authors' file with its line
REPOSITORY_PATH = re.compile(r"(?<![\[(/\w.])((?:\w+/)+[\w.]+\.(?:md|py|yaml|csv))(?![\w/:\])])")


def write_pages(folder: Path) -> None:
    """Writes a page per file of trainers, an index of them, and the tiny CLIP's model card."""
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
    card = (REPOSITORY / MODEL_CARD).read_text("utf-8").replace("../../../docs/", "../")
    (folder / "tiny_clip.md").write_text(card, encoding="utf-8")
    index = "# Trainers\n\n| trainer | what it is |\n|---|---|\n" + "".join(rows)
    (folder / "index.md").write_text(index, encoding="utf-8")


def module_of(name: str) -> ModuleType:
    return import_module(METHODS[name], "trainers")


def opening(module: ModuleType) -> tuple[str, str]:
    """The first two sentences of the docstring, in a line and without the name before its colon, and
    the rest, as Markdown."""
    whole = (inspect.getdoc(module) or "").replace("``", "`")
    text = whole.partition(": ")[2] or whole
    text = text[:1].upper() + text[1:]
    prose = text.partition("\n\n- ")[0]
    ends = [found.end() for found in re.finditer(r"\.(?=\s|$)", prose)][:2]
    return " ".join(text[: ends[-1]].split()), text[ends[-1] :].strip()


def first_sentence(module: ModuleType) -> str:
    """For a cell of a table."""
    return opening(module)[0].partition(". ")[0].rstrip(".").replace("|", r"\|") + "."


def page(module: ModuleType, names: list[str]) -> str:
    """Return the page of the trainers of one file: their description, results and commands; then the
    rest of the docstring, the recipes and the settings."""
    file = f"{module.__name__.replace('.', '/')}.py"
    says, further = opening(module)
    parts = [
        f"# {', '.join(names)}\n",
        f"{says}\n",
        numbers(names),
        f"```bash\npython train.py --trainer {names[0]} --images my_folder\n```\n",
        f"[How it is compared with its authors' code]({section(names[0])}) · [code](../../{file}) · "
        "[which trainer to take](../choosing.md) · [protocols](../protocols.md)\n",
        f"## How it works\n\n{further}\n" if further else "",
    ]
    for name in names:
        parts.append(f"## Recipes of {name}\n")
        parts += map(recipe, sorted((RECIPES / name).glob("*.yaml")))
        parts.append(f"## Settings of {name}\n")
        parts.append(
            f"In `TRAINER.{name.upper()}`; a recipe's values come on top of the defaults.\n"
        )
        parts.append("| setting | default | takes | what it is |\n|---|---|---|---|")
        for key, default, takes, says in settings(name):
            row = (f"`{key}`", f"`{default}`", takes, says)
            parts.append("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |")
        parts.append("")
    return REPOSITORY_PATH.sub(linked, "\n".join(parts))


def numbers(names: list[str]) -> str:
    """The table of published and of measured accuracies in base-to-new."""
    published = read_published()["base2new_average"]
    with open(MEASURED_PAGE, encoding="utf-8", newline="") as file:
        measured = {row["trainer"]: row for row in csv.DictReader(file)}
    lines = ["| base-to-new, accuracy in % | base | new | H |", "|---|---|---|---|"]
    for name in names:
        found = published.get(name) or published.get(f"{name} vit_b16")
        if found:
            cells = " | ".join(f"{value:.2f}" for value in found)
            lines.append(f"| {name}, published (ViT-B/16, mean of 11 data sets) | {cells} |")
        if name in measured:
            cells = " | ".join(measured[name][f"{column}_mean"] for column in ("base", "new", "H"))
            lines.append(f"| {name}, [measured](../benchmark.md) (tiny CLIP, drawings) | {cells} |")
    return "\n".join(lines) + "\n\nWe have not reproduced published numbers yet.\n"


def section(name: str) -> str:
    """The link to the section of docs/faithfulness that compares a trainer."""
    for path in sorted((DOCS / "faithfulness").glob("*.md")):
        for heading in re.findall(r"(?m)^## (.*)$", path.read_text("utf-8")):
            if name in heading.split(", "):
                anchor = heading.lower().replace(",", "").replace(" ", "-")
                return f"../faithfulness/{path.name}#{anchor}"
    return "../faithfulness.md"


def linked(found: re.Match[str]) -> str:
    """A path of this repository in running text, as a link."""
    path = found[1]
    if not (REPOSITORY / path).is_file():
        return found[0]
    inside = path.startswith("docs/")
    return f"[{path}]({'../' + path.removeprefix('docs/') if inside else '../../' + path})"


def recipe(path: Path) -> str:
    """Return a recipe and its head: its source, its cost and the expected result."""
    lines = path.read_text("utf-8").splitlines()
    head = [line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    return f"- [{path.stem}](../../{path.relative_to(REPOSITORY).as_posix()}): {' '.join(head)}\n"


def settings(name: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield for each setting its key, its default, the values that it takes, and its meaning."""
    for key, setting in method_class(name).declared.items():
        if isinstance(setting.takes, list):
            takes = ", ".join(f"`{value!r}`" for value in setting.takes)
        else:
            takes = ", ".join(f"{bound} {number:g}" for bound, number in setting.takes.items())
        yield key, repr(setting.default), takes, setting.says
