"""Docstrings and signatures as plain Markdown, for the reference: read from the source, nothing is
imported.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|References):")
ENTRY = re.compile(
    r"    (\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)"
)  # of a section: names, and what they are
Documented = ast.ClassDef | ast.FunctionDef


def source_of(module: str) -> ast.Module:
    path = REPOSITORY / f"{module.replace('.', '/')}.py"
    return ast.parse(path.read_text("utf-8"))


def whole(module: str) -> str:
    """A module's own docstring, and its ``members``."""
    head = markdown(ast.get_docstring(source_of(module)) or "")
    return f"{head}\n\n{members(module)}"


def members(module: str, names: Iterable[str] = ()) -> str:
    """The classes and functions of a module, with their public methods.

    names: those that are meant, in this order; without them all that have a docstring and no
        underscore before their name, as in the source.

    Raises:
        KeyError: the module has none of a name.
    """
    known = {node.name: node for node in documented(source_of(module).body)}
    parts = []
    for name in names or known:
        node = known[name]
        parts += [f"### {name}", *described(node)]
        if isinstance(node, ast.ClassDef):
            for method in documented(node.body):
                parts += [f"#### {name}.{method.name}", *described(method)]
    return "\n\n".join(filter(None, parts))


def documented(body: Iterable[ast.stmt]) -> Iterator[Documented]:
    """The public classes and functions with a docstring."""
    for node in body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            if ast.get_docstring(node) is not None:
                yield node


def described(node: Documented) -> Iterator[str]:
    """How it is called, and its docstring."""
    yield f"`{signature(node)}`"
    yield markdown(ast.get_docstring(node) or "")


def signature(node: Documented) -> str:
    """How a function is called, a class is made, or, of a property, what it is."""
    if isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base) for base in node.bases]
        heading = f"class {node.name}" + (f"({', '.join(bases)})" if bases else "")
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                return f"{heading}: {node.name}({arguments(part)})"
        return heading
    result = f" → {ast.unparse(node.returns)}".replace("'", "") if node.returns else ""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if any(name.endswith("property") for name in decorators):
        return f"{node.name}{result}"
    return f"{node.name}({arguments(node)}){result}"


def arguments(node: ast.FunctionDef) -> str:
    """What a function is called with, without ``self`` and ``cls``."""
    text = ast.unparse(node.args)
    return re.sub(r"^(self|cls)(, /)?(, )?", "", text)


def markdown(docstring: str) -> str:
    """A docstring in Google's layout as Markdown: sections have a bold head and a list, examples are
    blocks."""
    lines: list[str] = []
    section = ""
    in_example = False
    for line in inspect.cleandoc(docstring).splitlines():
        if in_example and not line.strip():
            lines.append("```")
            in_example = False
        if line.lstrip().startswith(">>>") and not in_example:
            lines.append("```pycon")
            in_example = True
        found = SECTION.fullmatch(line)
        entry = ENTRY.fullmatch(line) if section else None
        if in_example:
            lines.append(line)
        elif found:
            section = found[1]
            lines += [f"**{section}**", ""]
        elif entry:
            names = ", ".join(f"`{name}`" for name in entry[1].split(", "))
            lines.append(f"- {names}: {escaped(entry[2])}")
        elif section and line.startswith("    "):
            lines.append(f"  {escaped(line.strip())}")
        else:
            section = section if not line.strip() else ""
            is_code = line.startswith("    ")
            lines.append(line if is_code else escaped(line))
    if in_example:
        lines.append("```")
    return "\n".join(lines).strip()


def escaped(line: str) -> str:
    """Without what Markdown would make of a text that is none; code has single backticks."""
    parts = re.split(r"(``.+?``|`[^`]+`)", line)
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = f"`{part.strip('`')}`"
        else:
            parts[number] = re.sub(r"([*<_\[])", r"\\\1", part)
    return "".join(parts)
