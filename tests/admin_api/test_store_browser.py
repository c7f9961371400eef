"""The store in a real browser: nothing of a publisher's runs, it can be read on a phone and used by keyboard alone.

Where no browser can be had (in CI that is a failure) the same pages are still parsed and checked in tests/admin_api/test_store_pages.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.browser import Tab, browser, chromium
from tests.support.gateway import RunningGateway
from tests.support.world import Shop, World

EVIL = "<script>document.title='pwned'</script>\"><img src=x onerror=\"document.title='pwned'\"><svg onload=alert(1)>"
# Ratio of WCAG 2 between a text's colour and the first opaque background behind it; the least of all texts.
CONTRAST = """
(() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = node => { for (; node; node = node.parentElement) { const c = rgb(getComputedStyle(node).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255]; };
  let least = 21;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) { const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || node.closest('.skip, option')) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
    least = Math.min(least, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)); }
  return least;
})()
"""


@pytest_asyncio.fixture(scope="module")
async def tab() -> AsyncIterator[Tab]:
    async with browser(chromium()) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def shop(world: World, gateway: RunningGateway) -> Shop:
    endpoints = [
        {"method": "GET", "path": "/v1/" + "very-long-segment-" * 8 + "{id}", "description": EVIL, "price": "0.25"},
        {"method": "POST", "path": "/v1/items", "description": "Makes one."},
    ]
    made = await world.publisher(
        endpoints=endpoints, capabilities=[EVIL], usage_examples=[{"title": EVIL, "curl": "curl " + "x" * 300}]
    )
    await world.connection.execute(
        "UPDATE catalog.publisher SET name = $2, description = $3 WHERE id = $1",
        made.id, "Weather for every town", EVIL + "\n" + "W" * 400,
    )  # fmt: skip
    return made


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", ["/store", "/store/{slug}", "/store/nobody"])
async def test_a_page_runs_nothing_fits_the_screen_and_can_be_read(
    gateway: RunningGateway, tab: Tab, shop: Shop, page: str, dark: bool, width: int
) -> None:
    await tab.look(width, dark=dark)
    await tab.open(gateway.url + page.format(slug=shop.slug))
    assert "pwned" not in await tab.run("document.title")
    assert await tab.run("document.querySelectorAll('script, svg, iframe, img[onerror]').length") == 0
    assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert await tab.run("getComputedStyle(document.body).maxWidth") == "960px"  # the style is let in by its hash
    assert await tab.run(CONTRAST) >= 4.5
    pictures = os.environ.get("TOLLWAY_PICTURES")
    if pictures:
        name = f"{page.strip('/').replace('/', '-').format(slug='one')}-{width}-{'dark' if dark else 'light'}.png"
        await tab.picture(Path(pictures) / name)


async def test_an_inline_script_would_not_run(gateway: RunningGateway, tab: Tab, shop: Shop) -> None:
    await tab.open(f"{gateway.url}/store/{shop.slug}")
    added = (
        "const s = document.createElement('script'); s.textContent = \"document.title='ran'\"; document.head.append(s)"
    )
    await tab.run(added)
    assert await tab.run("document.title") != "ran"


async def test_the_store_is_used_by_keyboard_alone(gateway: RunningGateway, tab: Tab, shop: Shop) -> None:
    await tab.look(1280)
    await tab.open(f"{gateway.url}/store")
    focus = "document.activeElement.textContent.trim() || document.activeElement.id"
    seen: list[str] = []
    for _ in range(8):
        await tab.press("Tab")
        seen.append(await tab.run(focus))
        assert await tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen[:5] == ["Skip to content", "Store", "API reference", "For agents", "search"]
    assert seen[-1] == "Weather for every town"
    await tab.press("Enter")
    while await tab.run("document.readyState + location.pathname") != f"complete/store/{shop.slug}":
        pass
    assert await tab.run("document.querySelector('h1').textContent.trim()") == "Weather for every town"


async def test_the_search_form_finds(gateway: RunningGateway, tab: Tab, shop: Shop) -> None:
    await tab.open(f"{gateway.url}/store")
    await tab.run("document.getElementById('search').value = 'every town'; document.querySelector('form').submit()")
    while "search=every+town" not in await tab.run("document.readyState === 'complete' ? location.search : ''"):
        pass
    assert "1 publisher." in await tab.run("document.querySelector('[role=status]').textContent")
