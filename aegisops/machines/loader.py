"""Reads machine classes from TOML files: the shipped ones, a folder's, or one given by path."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from aegisops.errors import ConfigurationError
from aegisops.machines.model import MachineClass

SHIPPED = Path(__file__).parent / "classes"


def load_class(source: str | Path) -> MachineClass:
    """The class in a TOML file, or the shipped class of that name.

    Raises `ConfigurationError` naming the file and every wrong field.
    """
    path = Path(source)
    if path.suffix != ".toml":
        path = SHIPPED / f"{source}.toml"
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
            raise ConfigurationError(
                f"no machine class {str(source)!r}; shipped classes: {known}. "
                "For your own class give the path of its .toml file."
            )
    try:
        with path.open("rb") as file:
            return MachineClass.model_validate(tomllib.load(file))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise ConfigurationError(f"{path}: {problems}") from error


@cache
def shipped_classes() -> dict[str, MachineClass]:
    """Every class that comes with the product, by name."""
    return {path.stem: load_class(path) for path in sorted(SHIPPED.glob("*.toml"))}


def load_classes(folder: Path | None = None) -> dict[str, MachineClass]:
    """Shipped classes and those of `folder` (which win), by name."""
    classes = dict(shipped_classes())
    if folder is not None and folder.is_dir():
        for path in sorted(folder.glob("*.toml")):
            declared = load_class(path)
            classes[declared.name] = declared
    return classes
