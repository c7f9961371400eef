"""The walk-through of docs/pricing.md about buying, typed by a reader whose server sells by x402."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

from gateway.payments.evm.encoding import show_address
from tests.docs.markdown import ROOT, blocks
from tests.docs.test_quick_starts import assert_shows
from tests.support.gateway import RunningGateway
from tests.support.seller import Seller

PAGE = ROOT / "docs" / "pricing.md"


async def test_it_prints_what_it_shows(gateway: RunningGateway, seller: Seller, tmp_path: Path) -> None:
    found = blocks(PAGE)
    preparation = next(block.text for block in found if block.words == ("sh", "run"))
    (script,) = [block.text for block in found if block.words == ("sh", "buy")]
    (shown,) = [block.text for block in found if block.words == ("text", "bought")]
    (tmp_path / "dev.json").write_text(json.dumps({"upstream_url": seller.url}))
    environment = {
        **os.environ, "TOLLWAY": gateway.url, "TOLLWAY_DATA": str(tmp_path), "SELLER": seller.url,
        "PAYEE": show_address(seller.payee), "NO_PROXY": "*",
    }  # fmt: skip
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-euo", "pipefail", "-c", preparation + script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert_shows(shown, done.stdout)
    assert len(seller.presented) == 1
