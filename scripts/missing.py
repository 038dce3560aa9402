"""Says which packages the active environment lacks for extras of pyproject.toml, and the pip line that
installs them: python scripts/missing.py demo test

It installs nothing. Exit code 1 where something is missing. dassl-lite is never named where there
is a Dassl.
"""

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

HERE = Path(__file__).resolve().parents[1]
MODULES = {"clip-anytorch": "clip", "pillow": "PIL"}  # of packages that have others in their place


def requirements(extras: list[str]) -> list[str]:
    """Return the requirements in pyproject.toml, with those extras."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return list(dict.fromkeys(wanted))


def is_there(requirement: str) -> bool:
    """Whether the package is installed in one of the versions that are taken, or its module comes
    from elsewhere."""
    # "ray[data]" is ray
    name, *bounds = re.split("(>=|<)", re.sub(r",|\[.*\]", "", requirement))
    try:
        installed = numbers(version(name))
    except PackageNotFoundError:
        return find_spec(MODULES.get(name, name.replace("-", "_"))) is not None
    return all(
        (installed >= numbers(bound)) == (sign == ">=")
        for sign, bound in zip(bounds[::2], bounds[1::2])
    )


def numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)[:3]]


def main(extras: list[str]) -> int:
    lacking = [f'"{name}"' for name in requirements(extras) if not is_there(name)]
    if find_spec("dassl") is None:
        lacking.append(shlex.quote(str(HERE / "dassl-lite")))
    if lacking:
        print(
            f"The active environment, {sys.prefix}, lacks packages that this needs. Install them:\n"
            f"    {shlex.quote(sys.executable)} -m pip install {' '.join(lacking)}\n"
            "or leave it (deactivate, conda deactivate): then the same command makes an environment of its own, .venv"
        )
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
