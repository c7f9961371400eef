"""Reading the settings from TOML and the environment."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from gateway.settings.base import SettingsError
from gateway.settings.tree import Settings

SHORT_NAMES = {
    "TOLLWAY_HOST": ("server", "host"),
    "TOLLWAY_PORT": ("server", "port"),
    "TOLLWAY_WORKERS": ("server", "workers"),
    "TOLLWAY_SERVER": ("server", "kind"),
    "TOLLWAY_PUBLIC_URL": ("server", "public_url"),
    "TOLLWAY_DATA": ("server", "data"),
    "TOLLWAY_DATABASE_URL": ("database", "url"),
    "TOLLWAY_REDIS_URL": ("redis", "url"),
    "TOLLWAY_SECRET_KEYS": ("secrets", "keys"),
    "TOLLWAY_LOG_LEVEL": ("logging", "level"),
}

SECRET_FIELDS = {
    ("database", "url"), ("database", "direct_url"), ("redis", "url"),
    ("secrets", "keys"), ("secrets", "operator_token"), ("secrets", "operator_tokens"), ("smtp", "password"),
    ("stripe", "secret_key"), ("stripe", "webhook_secrets"),
}  # fmt: skip

# Environment variables with our prefix that are not settings but switches of tools (Makefile, tests, dev).
NOT_SETTINGS = re.compile(r"^TOLLWAY_(CONFIG|PYTHON|TEST_.*|FAULT|CHAIN_.*|BENCH_.*|DEV_.*)$")


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from TOLLWAY_CONFIG (TOML) and the environment.

    Raises SettingsError with one line per fault, naming the setting, its value and the fix.
    """
    env = os.environ if environ is None else environ
    tree, origin = _from_file(env.get("TOLLWAY_CONFIG"))
    for name, value in sorted(env.items()):
        if not name.startswith("TOLLWAY_") or NOT_SETTINGS.match(name):
            continue
        place = SHORT_NAMES.get(name) or _long_name(name)
        if place is None:
            raise SettingsError(f"{name}: no such setting; `tollway config check --list` prints them all")
        section = tree.setdefault(place[0], {})
        section[place[1]] = value.split(",") if _is_list(place) else value
        origin[place] = name
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(fault, origin) for fault in error.errors())) from None


def setting_names() -> dict[str, tuple[str, str]]:
    """Return every environment name with the (section, field) it sets; short names included."""
    names = {
        f"TOLLWAY_{section}_{field}".upper(): (section, field)
        for section, holder in Settings.model_fields.items()
        for field in _fields(holder.annotation)
    }
    return {**names, **SHORT_NAMES}


def _fields(section: Any) -> dict[str, Any]:
    return section.model_fields


def _long_name(name: str) -> tuple[str, str] | None:
    return setting_names().get(name)


def _is_list(place: tuple[str, str]) -> bool:
    section: Any = Settings.model_fields[place[0]].annotation
    return "tuple" in str(section.model_fields[place[1]].annotation)


def _from_file(name: str | None) -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    if not name:
        return {}, {}
    path = Path(name)
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"TOLLWAY_CONFIG={name}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"TOLLWAY_CONFIG={name}: not valid TOML: {error}") from None
    origin: dict[tuple[str, str], str] = {}
    for section, holder in tree.items():
        if isinstance(holder, dict):
            for field in cast("dict[str, Any]", holder):
                origin[section, field] = f"{name} [{section}] {field}"
    return tree, origin


def _explain(fault: Any, origin: Mapping[tuple[str, str], str]) -> str:
    place = tuple(str(part) for part in fault["loc"][:2])
    name = origin.get(place, ".".join(place)) if len(place) == 2 else ".".join(place)
    if fault["type"] == "extra_forbidden":
        return f"{name}: no such setting; `tollway config check --list` prints them all"
    said = fault["msg"].removeprefix("Value error, ")
    if len(place) < 2:  # a section, whose values may be secrets
        return f"{name}: {said}"
    value = _mask(fault["input"]) if place in SECRET_FIELDS else repr(fault["input"])
    return f"{name}={value}: {said}"


def _mask(value: object) -> str:
    """Show where a URL points without its password; anything else is hidden whole."""
    text = str(value)
    return repr(re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", text)) if "://" in text else "'***'"
