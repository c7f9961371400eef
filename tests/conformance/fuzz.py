"""Runs schemathesis against a gateway, as somebody with a credential or without one, and counts what was answered."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

TEMPLATE = Path(__file__).with_name("schemathesis.toml")
OPERATOR_TOKEN = "operator-token-of-the-conformance-tests"
# What would take away the very things that the other operations are tried with: a run of their own, the last.
# (Recovery revokes every key, and the tool does try the code that another operation has shown it.)
DESTRUCTIVE = (
    "revoke_default_org_api_key",
    "revoke_org_api_key",
    "delete_publisher",
    "delete_project",
    "wallet_recover",
)


@dataclass(frozen=True)
class Known:
    """What really exists in the database, so that not every path leads to 404."""

    organization: str
    foreign_organization: str
    publisher: str
    foreign_publisher: str
    slug: str
    foreign_slug: str
    receipt: str
    project: str
    key: str


@dataclass(frozen=True)
class Outcome:
    """Whether nothing was found, the tool's report, and how often each operation answered which status."""

    clean: bool
    report: str
    statuses: dict[str, Counter[int]]


@dataclass(frozen=True)
class Fuzzer:
    """A gateway and what is known of it. `seed` and `examples` (cases per operation and phase) bound a run."""

    url: str
    known: Known
    seed: int
    examples: int

    async def run(self, *selection: str, key: str | None = None, phases: str) -> Outcome:
        """Try every operation, or those that command line arguments select, to the end."""
        with tempfile.TemporaryDirectory(prefix="tw-fuzz-") as folder:
            config, events = Path(folder) / "schemathesis.toml", Path(folder) / "events.ndjson"
            config.write_text(self._config(key))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
                *("run", f"{self.url}/openapi.json", "--phases", phases, "--report-ndjson-path", str(events)),
                *selection,
                cwd=folder,
                env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return Outcome(process.returncode == 0, output.decode(errors="replace"), _statuses(events))

    def _config(self, key: str | None) -> str:
        filled = Template(TEMPLATE.read_text()).substitute(asdict(self.known), seed=self.seed, examples=self.examples)
        if key is not None:
            filled += f'\n[auth.openapi]\nbearer_auth = {{ bearer = "{key}" }}\n'
            filled += f'operator_token = {{ bearer = "{OPERATOR_TOKEN}" }}\n'
        return filled


def _statuses(events: Path) -> dict[str, Counter[int]]:
    found: dict[str, Counter[int]] = {}
    for line in events.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for interaction in recorder.get("interactions", {}).values():
            if interaction.get("response"):
                found.setdefault(recorder["label"], Counter())[interaction["response"]["status_code"]] += 1
    return found
