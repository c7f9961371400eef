"""What the documents say is there: links, commands, settings, problems, metrics, files."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from gateway.cli.main import COMMANDS
from gateway.errors import every_problem
from gateway.settings import NOT_SETTINGS, SHORT_NAMES, Settings, setting_names
from gateway.telemetry import metrics
from tests.docs.markdown import ROOT, anchors, blocks, documents, headings, links, prose, rows, shell_lines, spans
from tests.hostile.servers import FRAMING

OPERATIONS = ROOT / "docs" / "operations.md"
ALERTS = ROOT / "config" / "prometheus" / "alerts.yml"
HOUSE = "gateway admin_api pricing config tests benchmarks docs scripts .ci"
# Pages that are linked to and being written; one that exists has to leave this list.
PENDING: set[Path] = set()
ours = pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))


@ours
def test_every_relative_link_and_anchor_leads_somewhere(document: Path) -> None:
    broken: list[str] = []
    for link in links(document):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if target in PENDING:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_no_page_is_pending_that_exists() -> None:
    assert not [page for page in PENDING if page.exists()]


@ours
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    named = {word for line in shell_lines(document) for word in re.findall(r"(?:^|[\s&;])make ([a-z-]+)", line)}
    assert named <= targets


@ours
def test_every_tollway_command_and_option_that_is_named_exists(document: Path) -> None:
    wrong: list[str] = []
    for line in shell_lines(document):
        for found in re.finditer(r"(?:^|[\s;&/])tollway ((?:[a-z-]+ ?)+|-)([^|;&\n]*)", line):
            try:
                check_command(found[1].split(), re.findall(r"(?<=\s)--[a-z-]+", f" {found[1]}{found[2]}"))
            except LookupError as error:
                wrong.append(f"{line.strip()}: {error}")
    assert not wrong


def check_command(words: list[str], options: list[str]) -> None:
    """Raise LookupError unless `words` begin with a command, whose options these are."""
    words = [word for word in words if not word.startswith("-")]
    if not words or words[0] not in COMMANDS:
        raise LookupError(f"no command {words[:1]}")
    module, _, attribute = COMMANDS[words[0]][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    if isinstance(command, click.Group) and len(words) > 1:
        inner = command.commands.get(words[1])
        if inner is None:
            raise LookupError(f"no command {words[0]} {words[1]}")
        command = inner
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    if not set(options) <= known:
        raise LookupError(f"{command.name} has no option {set(options) - known}")


def test_the_table_of_commands_is_complete() -> None:
    named = {name for row in rows(OPERATIONS, "| `tollway ") for name in re.findall(r"`tollway ([a-z-]+)", row[0])}
    assert named == set(COMMANDS)


def test_the_settings_are_all_there_with_their_defaults() -> None:
    """A setting that is missing here is a row to add to docs/operations.md."""
    told = {names_of(row)[0]: row for row in rows(OPERATIONS, "| `TOLLWAY_") if len(row) == 3}
    places = {f"TOLLWAY_{section}_{field}".upper(): (section, field) for section, field in setting_names().values()}
    assert sorted(told) == sorted(places)
    short = {place: name for name, place in SHORT_NAMES.items()}
    for name, (section, field) in places.items():
        row = told[name]
        expected = {name, short.get((section, field), name)}
        assert set(names_of(row)) == expected, row
        assert row[1] == shown(getattr(getattr(Settings(), section), field)), row
        assert row[2], row


def names_of(row: list[str]) -> list[str]:
    return re.findall(r"`(TOLLWAY_[A-Z0-9_]+)`", row[0])


def shown(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return f"`{text}`" if text else "empty"


NAMING = [*documents(), ROOT / "compose.yaml", ROOT / "Dockerfile", ROOT / "Makefile"]


@pytest.mark.parametrize("file", NAMING, ids=lambda path: path.name)
def test_every_variable_that_is_named_exists(file: Path) -> None:
    named = set(re.findall(r"\bTOLLWAY_[A-Z0-9_]+[A-Z]\b", file.read_text(encoding="utf-8")))
    # The database password is compose.yaml's own.
    unknown = {name for name in named if not NOT_SETTINGS.match(name)} - set(setting_names()) - {"TOLLWAY_DB_PASSWORD"}
    assert not unknown


def test_the_problems_are_all_there_with_status_and_title() -> None:
    page = ROOT / "docs" / "problems.md"
    text = prose(page)
    kinds = {kind.name: kind for kind in every_problem()}
    assert sorted(headings(page)) == sorted(["Problems", *kinds])
    for name, kind in kinds.items():
        section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0].strip()
        assert section.startswith(f"**{kind.status}** {kind.title}."), name
        assert "\nRepeat: " in section, name


def test_the_differences_on_the_wire_are_all_there() -> None:
    """The hostile tests hold each server to FRAMING; operators read the same here."""
    words = {"one by one": "served", "waits": "waits"}
    section = OPERATIONS.read_text(encoding="utf-8").split("\n### On the wire\n", 1)[1].split("\n## ", 1)[0]
    table = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    told = {("hypercorn", case): reading for case, reading in table}
    assert told == {place: words[difference.kind] for place, difference in FRAMING.items()}


def test_the_metrics_are_all_there() -> None:
    told = [name for row in rows(OPERATIONS, "| `tollway_") for name in re.findall(r"`(tollway_[a-z_]+)`", row[0])]
    assert sorted(told) == sorted(declared_metrics())


def declared_metrics() -> set[str]:
    names = re.findall(r"^# TYPE (tollway_[a-z_]+) ", metrics.Metrics().render().decode(), re.M)
    return set(names)


def test_the_alert_rules_use_metrics_that_exist_and_say_what_to_do() -> None:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 0
    for rule in rules:
        named = set(re.findall(r"\btollway_[a-z_]+", rule["expr"]))
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= declared_metrics(), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]


@ours
def test_every_file_that_is_named_exists(document: Path) -> None:
    tops = "|".join(re.escape(top) for top in HOUSE.split())
    named = [span for span in spans(document) if re.fullmatch(rf"(?:{tops})/[\w./-]*", span)]
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_house_is_drawn_with_all_of_its_rooms() -> None:
    (tree,) = [block.text for block in blocks(ROOT / "docs" / "architecture.md") if "pricing/" in block.text]
    drawn = set(re.findall(r"^  ([a-z_]+)/", tree, re.M))
    rooms = {path.parent.name for path in (ROOT / "gateway").glob("*/__init__.py")}
    assert drawn == rooms


def test_the_staircase_is_the_one_that_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers: list[str] = project["tool"]["importlinter"]["contracts"][0]["layers"]
    (told,) = [span for span in spans(ROOT / "docs" / "architecture.md") if span.startswith("cli > ")]
    assert told.split(" > ") == [layer.replace("gateway.", "") for layer in layers]


def test_the_readme_is_short_and_the_changelog_has_an_unreleased_part() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert headings(ROOT / "CHANGELOG.md")[1] == "Unreleased"
