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


class BuildWithZoo(build_py):
    """Puts model_zoo.yaml, which people edit at the top level, beside the module that reads it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(
                "model_zoo.yaml", str(Path(self.build_lib, "paddle2torch", "converter", "zoo", "model_zoo.yaml"))
            )


setup(
    long_description=description(),
    cmdclass={"build_py": BuildWithZoo},
    package_dir={"paddle2torch": "face"} | {f"paddle2torch.{folder}": folder for folder in BELOW},
    packages=["paddle2torch"]
    + [f"paddle2torch.{name}" for name in find_packages(include=[*BELOW, *(f"{folder}.*" for folder in BELOW)])],
)
