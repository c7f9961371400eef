"""Reading the settings from TOML and the environment."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
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
NOT_SETTINGS = re.compile(r"^TOLLWAY_(CONFIG|PYTHON|PULSES|TEST_.*|FAULT|CHAIN_.*|BENCH_.*|DEV_.*)$")


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from TOLLWAY_CONFIG (TOML) and the environment.

    Raises SettingsError with one line per fault, naming the setting, its value and the fix.
    """
    env = os.environ if environ is None else environ
    tree, origin = layers(env)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(fault, origin) for fault in error.errors())) from None


def layers(env: Mapping[str, str]) -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    """Return what the file and the environment set, and where each (section, field) comes from. Raises SettingsError.

    A list that is set to nothing is the empty list, which replaces what an earlier layer has.
    """
    tree, origin = _from_file(env.get("TOLLWAY_CONFIG"))
    unknown: list[str] = []
    for name, value in sorted(env.items()):
        if not name.startswith("TOLLWAY_") or NOT_SETTINGS.match(name):
            continue
        place = SHORT_NAMES.get(name) or _long_name(name)
        if place is None:
            unknown.append(f"{name}: no such setting{nearest(name, setting_names())}")
            continue
        section = tree.setdefault(place[0], {})
        if not isinstance(section, dict):
            raise SettingsError(f"{env['TOLLWAY_CONFIG']} {place[0]}: must be a table, [{place[0]}]")
        section[place[1]] = _listed(value) if _is_list(place) else value
        origin[place] = name
    if unknown:
        raise SettingsError("\n".join(unknown))
    return tree, origin


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the known one that it is nearest to, or where all are."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else "; `tollway config check --list` prints them all"


def _listed(value: str) -> list[str]:
    return value.split(",") if value.strip() else []


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
        return f"{name}: no such setting{_nearest_in_file(place)}"
    said = fault["msg"].removeprefix("Value error, ")
    if len(place) < 2:  # a section, whose values may be secrets
        return f"{name}: {said}"
    value = mask(fault["input"]) if place in SECRET_FIELDS else repr(fault["input"])
    return f"{name}={value}: {said}"


def _nearest_in_file(place: tuple[str, ...]) -> str:
    known = [f"[{section}] {field}" for section, field in setting_names().values()]
    sections = [f"[{section}]" for section in Settings.model_fields]
    return nearest(f"[{place[0]}] {place[1]}", known) if len(place) == 2 else nearest(f"[{place[0]}]", sections)


def mask(value: object) -> str:
    """Show where a URL points without its password; anything else is hidden whole."""
    text = str(value)
    if "://" not in text:
        return "'***'"
    without_login = re.sub(r"(//[^:/@]*):.*@", r"\1:***@", text)
    return repr(re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", without_login))
