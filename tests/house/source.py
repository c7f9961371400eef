"""The repository as the house tests see it: tracked files, and Python modules as syntax trees."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pricing", "gateway", "admin_api")
NOT_OURS = frozenset({".git", ".venv", ".tollway", "__pycache__", "node_modules"})


@dataclass(frozen=True)
class Module:
    """One Python file: its path from the root, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def within(self, *places: str) -> bool:
        """Return whether the file is one of these files, or in one of these folders."""
        return any(self.path == place or self.path.startswith(place + "/") for place in places)


@cache
def files() -> tuple[str, ...]:
    """Return every tracked file that exists; in an unpacked archive, every file."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        found = listed.stdout.decode().rstrip("\0").split("\0")
    else:
        found = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if not NOT_OURS & {*path.parts}]
    return tuple(sorted(path for path in found if (ROOT / path).is_file()))


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Return the Python files in some folders, by default of the three packages."""
    wanted = folders or PACKAGES
    found = [Module(path, (ROOT / path).read_text()) for path in files() if path.endswith(".py")]
    return tuple(module for module in found if module.within(*wanted))


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every module that is imported, also inside functions."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def scopes(module: Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield every node with the dotted name of the function, class, argument or variable that it belongs to."""
    yield from _scopes(module.tree, "")


def _scopes(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        own = None
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own = child.name
        elif isinstance(child, ast.arg | ast.keyword):
            own = child.arg
        elif isinstance(child, ast.AnnAssign) or (
            isinstance(child, ast.Assign) and isinstance(node, ast.Module | ast.ClassDef)
        ):
            own = ast.unparse(child.target if isinstance(child, ast.AnnAssign) else child.targets[0])
        name = ".".join(filter(None, (inside, own)))
        yield name, child
        yield from _scopes(child, name)
