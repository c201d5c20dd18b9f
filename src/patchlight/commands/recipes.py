"""`patchlight recipes`: the recipes that there are, one of them, or every setting that a recipe can have."""

from __future__ import annotations

from patchlight.config import RECIPES, About, FieldInfo, describe_fields, load_recipe, recipes
from patchlight.paths import user_path


def list_recipes(recipe: str | None = None, *, fields: bool = False) -> str | list[About] | list[FieldInfo]:
    """What each recipe says of itself; with `recipe`, a name or a path, its TOML text; with `fields` every setting.

    Raises UsageError where there is no such recipe, or it is wrong.
    """
    if fields:
        return describe_fields()
    if recipe is None:
        return recipes()
    load_recipe(recipe)  # for its errors
    path = user_path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml"
    return path.read_text(encoding="utf-8-sig")
