"""The command line from outside: what it prints, where, and with which status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from gateway.cli.config import every_setting
from gateway.cli.context import settings_for_cli
from gateway.cli.main import COMMANDS, cli
from gateway.ledger.resolutions import Decision
from gateway.settings import setting_names
from tests.support.dev import tollway
from tests.support.leaks import SECRET_KEYS


def test_help_lists_every_command() -> None:
    shown = tollway("--help")
    assert shown.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in shown.stdout


def test_help_says_what_each_decision_about_an_exchange_does() -> None:
    shown = tollway("exchanges", "resolve", "--help").stdout
    for decision in get_args(Decision):
        assert f"\n    {decision:<8} " in shown


def test_every_registered_command_can_be_imported() -> None:
    for name in COMMANDS:
        command = cli.get_command(None, name)  # pyright: ignore[reportArgumentType]
        assert command is not None
        assert command.name == name


def test_an_unknown_command_is_one_line_and_status_2() -> None:
    refused = tollway("fly")
    assert refused.returncode == 2
    assert "No such command 'fly'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_config_check_says_ok() -> None:
    assert tollway("config", "check", "--offline", TOLLWAY_SECRET_KEYS=SECRET_KEYS).stdout == "ok\n"


def test_config_check_names_each_fault() -> None:
    refused = tollway("config", "check", TOLLWAY_PORT="x", TOLLWAY_WORKERS="0")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 2
    assert "TOLLWAY_PORT='x'" in refused.stderr
    assert "TOLLWAY_WORKERS='0'" in refused.stderr
    assert refused.stdout == ""


def test_a_misspelt_setting_is_refused() -> None:
    refused = tollway("config", "check", TOLLWAY_PROT="1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr == "tollway: TOLLWAY_PROT: no such setting; did you mean TOLLWAY_PORT?\n"


def test_the_list_names_every_setting() -> None:
    listed = "\n".join(every_setting())
    for name in setting_names():
        assert name in listed


@pytest.mark.parametrize("command", ["migrate", "serve", "dev"])
def test_wrong_settings_stop_every_command_before_it_does_anything(tmp_path: Path, command: str) -> None:
    refused = tollway(command, TOLLWAY_DATA=str(tmp_path / "data"), TOLLWAY_PORT="99999")
    assert refused.returncode == 2
    assert refused.stderr.startswith("tollway: TOLLWAY_PORT='99999'")
    assert not (tmp_path / "data").exists()


def test_a_database_that_is_away_is_one_line() -> None:
    refused = tollway("migrate", TOLLWAY_DATABASE_URL="postgresql://tollway@127.0.0.1:1/tollway")
    assert refused.returncode == 1
    assert refused.stderr.startswith("tollway: no connection to the database at 127.0.0.1:1 (TOLLWAY_DATABASE_URL): ")
    assert len(refused.stderr.splitlines()) == 1


def _dev_json(directory: Path) -> dict[str, str]:
    document = {
        "database_url": "postgresql://tollway:pw@127.0.0.1:5999/tollway",
        "redis_url": "redis://:pw@127.0.0.1:6999/0",
        "secret_keys": "dev1:" + "A" * 43 + "=",
    }
    (directory / "dev.json").write_text(json.dumps(document))
    return document


def test_commands_find_the_development_gateway(tmp_path: Path) -> None:
    document = _dev_json(tmp_path)
    found = settings_for_cli({"TOLLWAY_DATA": str(tmp_path)})
    assert found.database.url == document["database_url"]
    assert found.redis.url == document["redis_url"]
    assert found.secrets.keys == document["secret_keys"]


def test_a_configured_database_is_not_mixed_with_development_keys(tmp_path: Path) -> None:
    _dev_json(tmp_path)
    mine = "postgresql://me@db/mine"
    found = settings_for_cli({"TOLLWAY_DATA": str(tmp_path), "TOLLWAY_DATABASE_URL": mine})
    assert found.database.url == mine
    assert found.secrets.keys == ""


def test_without_dev_json_the_configuration_stands(tmp_path: Path) -> None:
    assert (
        settings_for_cli({"TOLLWAY_DATA": str(tmp_path)}).database.url == "postgresql://tollway@127.0.0.1:5432/tollway"
    )
