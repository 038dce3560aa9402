"""Names of the library: labelling imports ``trainers``, as the folder is called here. In a wheel
the library is ``cdc_trainers``, and ``cdc_labelling`` imports it by that name; an editable
installation keeps the files as they are, and has the library under both names."""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

IMPORT = re.compile(r"^(\s*(?:from|import) )trainers(?=[.\s])", re.MULTILINE)


class Build(build_py):
    """Builds a wheel's modules."""

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        built, is_copied = super().build_module(module, module_file, package)
        if package.startswith("cdc_labelling"):
            path = Path(built)
            path.write_text(IMPORT.sub(r"\1cdc_trainers", path.read_text("utf-8")), "utf-8")
        return built, is_copied


class Editable(editable_wheel):
    """Builds an editable installation."""

    def run(self) -> None:
        self.distribution.package_dir["trainers"] = "trainers"
        self.distribution.packages.append("trainers")
        super().run()


setup(cmdclass={"build_py": Build, "editable_wheel": Editable})
