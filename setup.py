"""Puts model_zoo.yaml, which people edit at the top level, into the built package. All else stands in setup.cfg."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithZoo(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file("model_zoo.yaml", str(Path(self.build_lib, "converter", "model_zoo.yaml")))


setup(cmdclass={"build_py": BuildWithZoo})
