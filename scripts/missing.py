"""Says which packages the active environment lacks for extras of setup.py, and the pip line that installs them: python scripts/missing.py demo test

It installs nothing. Exit code 1 where something is missing. dassl-lite is never named where there is a Dassl.
"""

import ast
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

MODULES = {  # package → its module, where that has another name
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "clip-anytorch": "clip",
    "setuptools": "pkg_resources",
    "fonttools": "fontTools",
    "open_clip_torch": "open_clip",
    "pytest-xdist": "xdist",
    "import-linter": "importlinter",
    "types-PyYAML": "yaml-stubs",
    "types-tabulate": "tabulate-stubs",
    "types-tqdm": "tqdm-stubs",
}


def requirements(extras: list[str]) -> list[str]:
    """What setup.py requires, with those extras."""
    tree = ast.parse((Path(__file__).parents[1] / "setup.py").read_text(encoding="utf-8"))
    given = {
        keyword.arg: ast.literal_eval(keyword.value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "setup"
        for keyword in call.keywords
        if keyword.arg in ("install_requires", "extras_require")
    }
    needed = given["install_requires"] + [
        requirement for extra in extras for requirement in given["extras_require"][extra]
    ]
    return list(dict.fromkeys(needed))


def is_there(requirement: str) -> bool:
    """Whether the package can be imported, and is not older than it must be."""
    name, _, least = re.fullmatch(r"([\w-]+)(>=([\d.]+))?.*", requirement).groups()
    if find_spec(MODULES.get(name, name.replace("-", "_"))) is None:
        return False
    try:
        return least is None or numbers(version(name)) >= numbers(least)
    except PackageNotFoundError:  # the module comes from elsewhere
        return True


def numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)[:3]]


def main(extras: list[str]) -> int:
    lacking = [f'"{name}"' for name in requirements(extras) if not is_there(name)]
    if find_spec("dassl") is None:
        lacking.append(shlex.quote(str(Path(__file__).resolve().parents[1] / "dassl-lite")))
    if lacking:
        print(
            f"The active environment, {sys.prefix}, lacks packages that this needs. Install them:\n"
            f"    {shlex.quote(sys.executable)} -m pip install {' '.join(lacking)}\n"
            "or leave it (deactivate, conda deactivate): then the same command makes an environment of its own, .venv"
        )
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
