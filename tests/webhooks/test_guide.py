"""docs/webhooks.md: its table of events is the code's, and its three ways to verify do verify, and refuse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.actions import ACTIONS
from gateway.webhooks.events import EVENT_OF_ACTION, MEANINGS
from gateway.webhooks.signing import headers, new_secret
from tests.docs.markdown import ROOT

GUIDE = (ROOT / "docs" / "webhooks.md").read_text()
BODY = '{"type":"api_key.created","data":{"name":"Ä \\" \\\\ \\n"}}'.encode()
# Language of the block: how it is run, and what has to be there.
RUNNERS = {
    "python": ([sys.executable, "{file}.py"], ()),
    "typescript": (["node", "{file}.mjs"], ("node",)),
    "bash": (["bash", "{file}.sh"], ("openssl", "od")),
}
STRICT = {**RUNNERS, "bash": (["bash", "-euo", "pipefail", "{file}.sh"], ("openssl", "od"))}


def test_the_table_of_events_is_true() -> None:
    told = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", GUIDE, re.M))
    assert told == MEANINGS


def test_every_event_of_a_change_belongs_to_an_action_and_is_told() -> None:
    assert EVENT_OF_ACTION.keys() <= ACTIONS.keys()
    assert set(EVENT_OF_ACTION.values()) <= MEANINGS.keys()


def run(
    language: str,
    folder: Path,
    body: bytes,
    keys: list[str],
    secret: str,
    *,
    age: timedelta = timedelta(),
    path: str = "/usr/local/bin:/usr/bin:/bin",
    runners: dict[str, tuple[list[str], tuple[str, ...]]] = RUNNERS,
    **environment: str,
) -> subprocess.CompletedProcess[bytes]:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.M | re.S)
    command, _ = runners[language]
    words = [word.format(file=folder / "verify") for word in command]
    Path(words[-1]).write_text(code)
    fields = headers("01a22c1a-3f4a-716c-833e-ecffa6d4150d", datetime.now(UTC) - age, BODY, keys)
    names = {name.decode().upper().replace("-", "_"): value.decode() for name, value in fields}
    env = {"PATH": path, "WEBHOOK_SECRET": secret, **names, **environment}
    return subprocess.run(words, input=body, env=env, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("language", RUNNERS)
def test_a_signature_is_verified_and_a_forged_body_refused(language: str, tmp_path: Path) -> None:
    for program in RUNNERS[language][1]:
        if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin") is None:
            pytest.skip(f"there is no {program}")
    old, new = new_secret(), new_secret()
    for secret in (old, new):
        done = run(language, tmp_path, BODY, [new, old], secret)
        assert done.returncode == 0, done.stderr
        assert json.loads(BODY)["type"].encode() in done.stdout
    assert run(language, tmp_path, BODY + b" ", [new, old], new).returncode != 0
    assert run(language, tmp_path, BODY, [old], new).returncode != 0


@pytest.mark.parametrize("language", RUNNERS)
@pytest.mark.parametrize("age", [timedelta(minutes=6), timedelta(minutes=-6), timedelta(days=3)])
def test_an_old_delivery_is_refused(language: str, age: timedelta, tmp_path: Path) -> None:
    for program in RUNNERS[language][1]:
        if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin") is None:
            pytest.skip(f"there is no {program}")
    secret = new_secret()
    for runners in (RUNNERS, STRICT):
        done = run(language, tmp_path, BODY, [secret], secret, age=age, runners=runners)
        assert done.returncode != 0
        assert b"api_key.created" not in done.stdout
        assert run(language, tmp_path, BODY, [secret], secret, runners=runners).returncode == 0


def test_the_shell_refuses_everything_where_a_program_is_missing(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "base64", "od", "tr", "date", "grep"):  # no openssl
        (programs / name).symlink_to(str(shutil.which(name)))
    secret = new_secret()
    for signature in ("v1,", "v1,AAAA", ""):
        done = run("bash", tmp_path, BODY, [secret], secret, path=str(programs), WEBHOOK_SIGNATURE=signature)
        assert done.returncode != 0, signature
        assert not done.stdout
