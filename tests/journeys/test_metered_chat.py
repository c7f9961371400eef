"""The official OpenAI client at a slug: a base URL and a key, nothing else, and each answer costs what it says."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, AuthenticationError, InternalServerError

from tests.support.chat import ChatUpstream
from tests.support.gateway import RunningGateway
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

QUESTION = [{"role": "user", "content": "how much is the fish"}]


@pytest_asyncio.fixture
async def shop(world: World, chat: ChatUpstream) -> Shop:
    """A chat at 100 and 300 USDC for a million tokens, and 10 % of it for the gateway."""
    return await world.publisher(
        None, api_url=f"{chat.url}/v1", billing_model="pay_per_use", gateway_fee_percent="10",
        reserve_max_charge="0.05", unresolved_fallback_charge="0.01",
        upstream_usage_prices={"usage.prompt_tokens": "100", "usage.completion_tokens": "300"},
        endpoints=[{"method": "GET", "path": "/models", "price": "0"}],
    )  # fmt: skip


async def settled(world: World, agent: Agent, left: int) -> None:
    async with asyncio.timeout(60):
        while await world.balance(agent) != left:
            await asyncio.sleep(0.02)


async def test_the_official_client_works_as_it_is(
    gateway: RunningGateway, world: World, shop: Shop, chat: ChatUpstream
) -> None:
    agent = await world.agent(1_000_000)
    async with AsyncOpenAI(
        base_url=f"{gateway.url}/publishers/{shop.slug}", api_key=agent.key, max_retries=0
    ) as client:
        assert [model.id async for model in client.models.list()] == ["echo-1"]
        answer = await client.chat.completions.create(model="echo-1", messages=QUESTION)
        assert (answer.choices[0].message.content, answer.usage.total_tokens) == ("how much is the fish", 10)
        await settled(world, agent, 1_000_000 - 2_200)
        stream = await client.chat.completions.create(
            model="echo-1", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert (
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "how much is the fish"
        )
        assert chunks[-1].usage.total_tokens == 10
        await settled(world, agent, 1_000_000 - 4_400)
        with pytest.raises(InternalServerError):
            await client.chat.completions.create(model="echo-1", messages=QUESTION, extra_body={"x_mode": "fail"})
        await settled(world, agent, 1_000_000 - 4_400)
    assert await world.earned(shop) == 4_000
    assert not any(agent.key in head for head in chat.heads)
    async with AsyncOpenAI(base_url=f"{gateway.url}/publishers/{shop.slug}", api_key="wrong", max_retries=0) as client:
        with pytest.raises(AuthenticationError):
            await client.chat.completions.create(model="echo-1", messages=QUESTION)
