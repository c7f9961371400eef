"""The documents' shell blocks, typed by a reader: they run in order on one gateway, and print what the document shows."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from gateway.errors import every_problem
from tests.docs.conftest import Demo
from tests.docs.markdown import ROOT, Block, blocks

DOCS = ROOT / "docs"
MARK = "\x1e"
RUN, OUTPUT = ("sh", "run"), ("text", "output")
PROGRAM = ("python", "run")


def assert_shows(expected: str, actual: str) -> None:
    """Assert that the output holds what the document shows; "…" stands for anything, white space does not count."""
    pieces = [re.escape(re.sub(r"\s+", "", piece)) for piece in expected.split("…")]
    assert re.search(".*?".join(pieces), re.sub(r"\s+", "", actual), re.S), f"expected\n{expected}\nin\n{actual}"


def type_in(demo: Demo, document: Path, before: str = "") -> None:
    """Run every `sh run` and `python run` block of a document in one shell and compare the outputs."""
    found = [block for block in blocks(document) if block.words in (RUN, PROGRAM, OUTPUT)]
    scripts = [typed(block) for block in found if block.words != OUTPUT]
    printed = demo.shell(before + "".join(f"printf '{MARK}'\n{script}" for script in scripts)).split(MARK)[1:]
    assert len(printed) == len(scripts) > 0
    outputs = iter(printed)
    actual = ""
    for block in found:
        if block.words != OUTPUT:
            actual = next(outputs)
        else:
            assert_shows(block.text, actual)


def typed(block: Block) -> str:
    """Return what a reader types to run a block."""
    return block.text if block.words == RUN else f"python - <<'PROGRAM'\n{block.text}PROGRAM\n"


def preparation() -> str:
    """Return the quick start's first block, in which `field` and UPSTREAM are defined."""
    return next(block.text for block in blocks(DOCS / "publishers.md") if block.words == RUN)


def test_the_agents_quick_start_runs_as_it_stands(demo: Demo) -> None:
    type_in(demo, DOCS / "agents.md")


def test_the_publishers_quick_start_runs_as_it_stands(demo: Demo) -> None:
    type_in(demo, DOCS / "publishers.md")


def test_a_database_is_sold_in_five_minutes(demo: Demo) -> None:
    type_in(demo, DOCS / "sql.md")


def test_the_worked_example_of_money_runs_as_it_stands(demo: Demo) -> None:
    type_in(demo, DOCS / "money.md", before=preparation())


def test_the_examples_of_plans_run_as_they_stand(demo: Demo) -> None:
    type_in(demo, DOCS / "plans.md", before=preparation())


def test_the_worked_taxes_of_invoices_are_what_is_computed(demo: Demo) -> None:
    type_in(demo, DOCS / "invoices.md")


def test_the_walk_through_of_prices_runs_as_it_stands(demo: Demo) -> None:
    type_in(demo, DOCS / "pricing.md")


def test_an_mcp_server_is_sold_and_its_tools_are_called(demo: Demo) -> None:
    type_in(demo, DOCS / "mcp.md")


def test_the_readmes_transcript_is_what_happens(demo: Demo) -> None:
    (transcript,) = [block.text for block in blocks(ROOT / "README.md") if block.words == ("console",)]
    url, key = str(demo.document["url"]), str(demo.document["demo"]["agent_api_key"])
    text = re.sub(r"seren_[0-9a-f]{16}_…", key, transcript.replace("http://127.0.0.1:8402", url))
    first, *typed = re.split(r"^\$ ", text, flags=re.M)[1:]
    # The suite's own database is used, so none is created.
    assert first.splitlines()[:2] == ["make run", "creating the database (data in …/.tollway)"]
    assert "\n".join(first.splitlines()[2:]).strip() == "\n".join(demo.printed)
    assert [command.split("\n", 1)[0] for command in typed] == demo.printed[1:]
    for command in typed:
        line, expected = command.split("\n", 1)
        assert_shows(expected, demo.shell(line))


def test_the_type_of_every_problem_is_a_page_that_explains_it(demo: Demo) -> None:
    for kind in every_problem():
        with urllib.request.urlopen(f"{demo.document['url']}/problems/{kind.name}", timeout=10) as answer:
            page = answer.read().decode()
        assert page.startswith(f"# {kind.title}\n"), kind.name
        assert f"Status {kind.status}, type `/problems/{kind.name}`" in page, kind.name
