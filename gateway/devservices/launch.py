"""Become another program: drop to an unprivileged account, ask to be told when the parent dies, exec.

A script of its own, run as `python -I -S launch.py SIGNAL PARENT UID GID PROGRAM ARGUMENT...`, because both steps
belong between fork and exec, where running Python code in a forked copy of a threaded parent can deadlock. It prevents
two failures: a server that refuses to run as root, and servers that outlive a supervisor killed by SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Exec `arguments[4:]` as uid/gid `arguments[2:4]` (-1 keeps ours), with signal `arguments[0]` on parent death."""
    death_signal, parent, uid, gid = (int(text) for text in arguments[:4])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid: a change of credentials clears the setting. Elsewhere the next start stops what was left over.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the supervisor is gone")
    os.execv(arguments[4], arguments[4:])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
