"""Copies the project's files that are not Python into the wheel; all else is in pyproject.toml."""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

PROJECT_FILES = ("workspace.yaml", "dagster.yaml", "sql/**/*.sql", "deploy/kafka/*")


class BuildWithProjectFiles(build_py):
    """`aegisops/project_files.py` finds them again."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for pattern in PROJECT_FILES:
            for source in sorted(Path().glob(pattern)):
                target = Path(self.build_lib, "aegisops", "project", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                copyfile(source, target)


setup(cmdclass={"build_py": BuildWithProjectFiles})
