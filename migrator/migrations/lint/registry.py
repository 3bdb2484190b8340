"""Our own rules: every module of `rules` that has a `RULE`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from migrator.migrations.lint import rules
from migrator.migrations.lint.model import Rule


@cache
def own() -> dict[str, Rule]:
    """Every own rule by its id."""
    names = sorted(module.name for module in pkgutil.iter_modules(rules.__path__))
    modules = (importlib.import_module(f"{rules.__name__}.{name}") for name in names)
    found = [module.RULE for module in modules if hasattr(module, "RULE")]
    return {rule.id: rule for rule in found}
