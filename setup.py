"""Where the packages lie in a checkout, and what of it the built package needs. All else stands in setup.cfg."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# Top-level folders of the checkout that are installed below the one import name.
BELOW = ("architectures", "converter", "reading")
REPOSITORY = "https://github.com/paddle2torch/paddle2torch/blob/main"


def description() -> str:
    """The README, with links that lead somewhere on the package index, too."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)", f"]({REPOSITORY}/", text)


# Edited at the top level; installed beside the module that reads them.
ZOO = ("model_zoo.yaml", "model_zoo.lock.json", "model_zoo.known.json")


class BuildWithZoo(build_py):
    """Puts the zoo's files where the package looks for them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in ZOO:
                self.copy_file(name, str(Path(self.build_lib, "paddle2torch", "converter", "zoo", name)))


setup(
    long_description=description(),
    cmdclass={"build_py": BuildWithZoo},
    package_dir={"paddle2torch": "face"} | {f"paddle2torch.{folder}": folder for folder in BELOW},
    packages=["paddle2torch"]
    + [f"paddle2torch.{name}" for name in find_packages(include=[*BELOW, *(f"{folder}.*" for folder in BELOW)])],
)
