"""flowprep recipes, and settings from a recipe and from what was given beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flowprep.config import Settings, load_toml, settings_from
from flowprep.errors import FlowprepError


def chosen_settings(recipe: str | None, given: dict[str, Any]) -> Settings:
    """Defaults, then the recipe, then what was given on the command line."""
    table = load_recipe(recipe) if recipe else {}
    settings = settings_from(table, f"recipe {recipe}")
    values = {name: value for name, value in given.items() if value is not None}
    values["engine_params"] = settings.engine_params | dict(
        _parameter(text) for text in given.get("engine_params") or ()
    )
    return replace(settings, **values)


@click.command()
def recipes() -> None:
    """List the settings of named datasets, for extract --recipe."""
    for name, path in shipped_recipes().items():
        table = load_toml(path)
        settings = settings_from(table["settings"], name)
        click.echo(f"{name:<12} {table['recipe']['about']}")
        click.echo(f"{'':12} {' '.join(settings.as_options()) or 'the defaults'}")
        click.echo()
    click.echo("flowprep extract --recipe NAME takes one; options given beside it win.")


def load_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe file, or of one that flowprep ships."""
    if name.endswith(".toml") or "/" in name:
        return _settings_table(load_toml(Path(name)), name)
    shipped = shipped_recipes()
    if name not in shipped:
        raise FlowprepError(
            f"unknown recipe {name!r}",
            f"allowed: {', '.join(sorted(shipped))}, or the path of a .toml file",
        )
    return _settings_table(load_toml(shipped[name]), name)


def shipped_recipes() -> dict[str, Path]:
    """Name -> file, sorted."""
    from importlib.resources import files

    paths = sorted(Path(str(p)) for p in files("flowprep.recipes").iterdir())
    return {path.stem: path for path in paths if path.suffix == ".toml"}


def _settings_table(table: dict[str, Any], where: str) -> dict[str, Any]:
    """The [settings] of a recipe, or of the config.toml of a dataset."""
    settings = table.get("settings")
    strange = sorted(set(table) - {"recipe", "settings", "source", "versions"})
    if not isinstance(settings, dict) or strange:
        found = ", ".join(strange) or "no [settings]"
        raise FlowprepError(
            f"recipe {where}: {found} at its top", "put the settings below a line [settings]"
        )
    return settings


def _parameter(text: str) -> tuple[str, int | float | str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise FlowprepError(f"--engine-param {text!r} has no value", "write it as name=value")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
