"""Dependencies: each is used, locked with hashes and without addresses, and the two locks agree."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest

from tests.house.source import ROOT, imports, modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
SERVICES = PROJECT["project"]["optional-dependencies"]["dev-services"]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")
# Used otherwise than by an import: how.
WITHOUT_IMPORT = {
    "asyncpg-stubs": "types, read by basedpyright",
    "basedpyright": "make lint",
    "granian": "a program that tests/server runs",
    "hatchling": "the build backend",
    "import-linter": "make lint",
    "pytest-asyncio": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest, for make test",
    "ruff": "make lint",
    "types-pyyaml": "types, read by basedpyright",
    "schemathesis": "a program that tests/conformance runs",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=!~; ]", one, maxsplit=1)[0]) for one in requirements}


def pins(lock: str) -> dict[str, set[str]]:
    """Return the versions of each package in a lock file; one that differs by platform has several."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        if match := PIN.match(line):
            found.setdefault(canonical(match[1]), set()).add(match[2])
    return found


def imported(*folders: str) -> set[str]:
    """Return the names of the distributions that the Python files of some folders import."""
    providers = metadata.packages_distributions()
    tops = {name.partition(".")[0] for module in modules(*folders) for _, name in imports(module)}
    return {canonical(one) for top in tops for one in providers.get(top, [])}


def test_every_runtime_dependency_is_imported_by_what_is_shipped() -> None:
    assert names(RUNTIME) - imported("pricing", "gateway", "admin_api") == set()


def test_what_is_shipped_imports_only_what_it_names() -> None:
    # starlette is fastapi's own foundation: its types are part of fastapi's interface.
    needed = imported("pricing", "gateway", "admin_api") - {"tollway"}
    assert needed - names(RUNTIME) - names(SERVICES) == {"starlette"}


def test_every_development_dependency_is_used() -> None:
    used = imported("tests", "benchmarks", "scripts") | WITHOUT_IMPORT.keys()
    assert names(DEVELOPMENT) - used == set()
    assert WITHOUT_IMPORT.keys() <= names(DEVELOPMENT)
    scripts = "".join((ROOT / path).read_text() for path in ("Makefile", ".ci/run", "pyproject.toml"))
    for tool in ("basedpyright", "ruff", "lint-imports", "hatchling.build"):
        assert tool in scripts


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-services.lock", "requirements-dev.lock"])
def test_a_lock_pins_and_hashes_everything_and_names_no_address(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert [line for line in lines if not PIN.match(line) and not HASH.match(line)] == []
    assert not re.search(r"://|--(?:index|extra-index|find-links|trusted)", "\n".join(lines))
    for number, line in enumerate(lines):
        if PIN.match(line):
            assert HASH.match(lines[number + 1]), f"{line} has no hash"


def test_the_locks_hold_what_the_project_names_and_agree() -> None:
    runtime, services = pins("requirements.lock"), pins("requirements-services.lock")
    everything = pins("requirements-dev.lock")
    assert names(RUNTIME) <= runtime.keys()
    assert names(SERVICES) <= services.keys()
    assert names(DEVELOPMENT) <= everything.keys()
    small = {**runtime, **services}
    assert {name for name, versions in small.items() if versions != everything.get(name)} == set()


def needs(roots: set[str]) -> set[str]:
    """Return some distributions and all that they need, as far as it is installed here."""
    found: set[str] = set()
    waiting = [*roots]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            try:
                listed = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            waiting += names([one for one in listed if "extra ==" not in one])
    return found


def test_production_installs_no_development_service() -> None:
    only_services = needs(names(SERVICES)) - needs(names(RUNTIME))
    assert only_services & pins("requirements-dev.lock").keys() == pins("requirements-services.lock").keys()
    assert pins("requirements.lock").keys() & pins("requirements-services.lock").keys() == set()


def test_the_image_has_all_that_builds_the_wheel() -> None:
    (listed,) = re.findall(r"keep = /\^\(([a-z|-]+)\)==/", (ROOT / "Dockerfile").read_text())
    assert needs({"hatchling"}) & pins("requirements-dev.lock").keys() <= set(listed.split("|"))
