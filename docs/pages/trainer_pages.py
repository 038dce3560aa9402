"""The documentation's page of each trainer, from ``METHODS``, docstrings, recipes, and the published
and measured numbers; docs/pages/reference.py writes them.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pandas
from docstrings import REPOSITORY, markdown, members

from results.published import read_published
from trainers import METHODS, method_class

CONFIGS = REPOSITORY / "configs/trainers"
MEASURED = REPOSITORY / "docs/data/base_to_new.csv"
FEW_SHOT = REPOSITORY / "docs/data/few_shot_published.csv"
AVERAGES = {
    "cross_dataset": "cross-data-set from ImageNet, average",
    "domain_generalisation": "domain generalisation from ImageNet, average",
}  # list in published.yaml → what its last number is


def pages_of_trainers() -> dict[str, str]:
    """File name → Markdown of a page per trainer, and of an index of them."""
    return {"index.md": index(), **{f"{name}.md": page(name) for name in METHODS}}


def index() -> str:
    lines = [f"| [{name}]({name}.md) | {first_sentence(module_of(name))} |" for name in METHODS]
    return (
        "# Trainers\n\nEvery trainer, with its recipes, settings and published numbers.\n\n"
        "| trainer | what it is |\n|---|---|\n" + "\n".join(lines) + "\n"
    )


def page(name: str) -> str:
    module = module_of(name)
    parts = [
        f"# {name}\n",
        markdown(inspect.getdoc(module) or "") + "\n",
        "## Use\n",
        f"```bash\npython train.py --trainer {name} --images my_folder\n"
        f"python run.py --protocol base2new --trainer {name} --dataset openmoji\n```\n",
        "## Recipes\n",
        "Each line is the head of the file: what it reproduces, costs and should reach.\n",
        *map(recipe, sorted((CONFIGS / name).glob("*.yaml"))),
        "## Numbers\n",
        *numbers(name),
        "## Settings\n",
        f"In `TRAINER.{name.upper()}`; a recipe's values come on top of these defaults.\n",
        "| setting | default | what it is |\n|---|---|---|",
        *settings(name),
        "\n## Compared with official code\n",
        f"{compared(name)}\n",
        "## In code\n",
        code(name),
    ]
    return "\n".join(parts)


def module_of(name: str) -> ModuleType:
    return import_module(f"trainers.{METHODS[name]}")


def first_sentence(module: ModuleType) -> str:
    """First sentence of the docstring, without the name before its colon."""
    text = " ".join((inspect.getdoc(module) or "").partition("\n\n")[0].split())
    said = re.sub(r"^[\w, ]+: ", "", text).replace("|", r"\|").replace("``", "`")
    first, *_ = re.split(r"(?<=\.) (?=[A-Z])", said)  # "et al." goes on with a comma
    return first[0].upper() + first[1:]


def recipe(path: Path) -> str:
    lines = path.read_text("utf-8").splitlines()
    head = [line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    name = path.relative_to(REPOSITORY).as_posix()
    return f"- [{path.stem}](../../{name}): {' '.join(head)}\n"


def numbers(name: str) -> Iterator[str]:
    """The published ones, and those measured on the embedded drawings."""
    published = read_published()
    for row, found in published["base2new_average"].items():
        if row.split()[0] == name:
            base, new, mean = found
            yield f"- Published (ViT-B/16, 11 data sets, {row}): base {base:.2f}, new {new:.2f}, H {mean:.2f}.\n"
    for key, title in AVERAGES.items():
        if name in published[key]:
            yield f"- Published, {title}: {published[key][name][-1]:.2f}.\n"
    few = pandas.read_csv(FEW_SHOT).query("trainer == @name and `16`.notna()")
    if not few.empty:
        yield (
            f"- Published, 16 shots (RN50, average of {len(few)} data sets): {few['16'].mean():.2f} "
            "([per data set and number of shots](../data/few_shot_published.csv)).\n"
        )
    table = pandas.read_csv(MEASURED).set_index("trainer")
    if name in table.index:
        base, new, mean = (table.loc[name, f"{part}_mean"] for part in ("base", "new", "H"))
        yield (
            f"- Measured on small drawings with the tiny CLIP: base {base:.2f}, new {new:.2f}, "
            f"H {mean:.2f} ([benchmark](../benchmark.md)).\n"
        )


# ---- settings ----


def settings(name: str) -> Iterator[str]:
    """A row per setting: its name, default and what it says."""
    for key, setting in method_class(name).declared.items():
        cells = (f"`{key}`", f"`{setting.default!r}`", setting.says)
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


# ---- what it was compared with, and its code ----


def compared(name: str) -> str:
    """A link to the section that says so."""
    for path in (REPOSITORY / "docs/faithfulness").glob("*.md"):
        for heading in re.findall(r"(?m)^## (.*)$", path.read_text("utf-8")):
            if name in re.findall(r"\w+", heading):
                anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
                return f"[What is identical, what differs, which tests show it](../faithfulness/{path.name}#{anchor})."
    return "Nothing: there is no section in docs/faithfulness."


def code(name: str) -> str:
    """The module's reference, on the page of the first of its trainers."""
    first = next(other for other in METHODS if METHODS[other] == METHODS[name])
    module = module_of(name)
    if first != name:
        return f"With [{first}]({first}.md#in-code).\n"
    return members(module.__name__) + "\n"
