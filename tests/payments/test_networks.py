"""config/networks.toml: what ships can be read, and a wrong file stops the start with words that say what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.networks import Networks, NetworksError, load_networks, networks_file

SHIPPED = networks_file().read_text(encoding="utf-8")


def read(tmp_path: Path, text: str, **environ: str) -> Networks:
    """Load a networks file with this text."""
    place = tmp_path / "networks.toml"
    place.write_text(text, encoding="utf-8")
    return load_networks({"TOLLWAY_CHAIN_NETWORKS": str(place), **environ})


def test_the_shipped_file_names_base_and_its_test_network() -> None:
    networks = load_networks({})
    assert [(network.id, network.chain_id, network.x402_name) for network in networks.networks] == [
        ("eip155:8453", 8453, "base"),
        ("eip155:84532", 84532, "base-sepolia"),
    ]
    sepolia = networks.find("eip155:84532")
    assert sepolia is not None
    usdc = sepolia.asset("USDC")
    assert usdc is not None
    assert usdc.eip712 is not None
    assert (usdc.eip712.name, usdc.eip712.version, usdc.transfer) == ("USDC", "2", ("eip3009", "permit2"))
    assert sepolia.asset("DAI") is None
    assert networks.find("eip155:1") is None


def test_no_network_has_a_node_until_one_is_configured(tmp_path: Path) -> None:
    assert all(network.rpc is None for network in load_networks({}).networks)
    networks = read(
        tmp_path, SHIPPED.replace('name = "Base"\n', 'name = "Base"\nrpc = "http://file.example"\n'),
        TOLLWAY_CHAIN_84532_RPC="http://environment.example/key",
    )  # fmt: skip
    assert [network.rpc for network in networks.networks] == ["http://file.example", "http://environment.example/key"]


def test_the_environment_wins_over_the_file_and_urls_are_not_shown(tmp_path: Path) -> None:
    text = SHIPPED.replace('name = "Base"\n', 'name = "Base"\nrpc = "http://file.example"\n')
    networks = read(tmp_path, text, TOLLWAY_CHAIN_8453_RPC="https://node.example/s3cret")
    assert networks.networks[0].rpc == "https://node.example/s3cret"
    assert "s3cret" not in repr(networks)
    with pytest.raises(NetworksError) as fault:
        read(tmp_path, text, TOLLWAY_CHAIN_8453_RPC="s3cret")
    assert "s3cret" not in str(fault.value)
    assert "network.eip155:8453.rpc='***': must be an http:// or https:// URL" in str(fault.value)


def test_a_facilitator_comes_from_the_environment_and_its_token_is_not_shown(tmp_path: Path) -> None:
    token = {"TOLLWAY_CHAIN_8453_FACILITATOR_TOKEN": "s3cret"}
    networks = read(tmp_path, SHIPPED, TOLLWAY_CHAIN_8453_FACILITATOR="https://facilitator.example/x402", **token)
    base = networks.networks[0]
    assert (base.facilitator, base.facilitator_token) == ("https://facilitator.example/x402", "s3cret")
    assert "s3cret" not in repr(networks)
    with pytest.raises(NetworksError, match=r"facilitator='facilitator\.example': must be an http"):
        read(tmp_path, SHIPPED, TOLLWAY_CHAIN_8453_FACILITATOR="facilitator.example", **token)


FAULTS = [
    ("decimals = 18", "decimals = 19", "network.eip155:84532.asset[1].decimals=19: Input should be less than or equal"),
    ("0x036CbD", "0x036CBD", "network.eip155:84532.asset[0].contract='0x036CBD53842c5426634e7929541eC2318f3dCF7e': must be"),
    ("confirmations = 2", "confirmation = 2", "network.eip155:84532.confirmation=2: no such field"),
    ('"permit2"]', '"permit3"]', "transfer[1]='permit3': Input should be 'eip3009' or 'permit2'"),
    ('"permit2"]', '"eip3009"]', "transfer: names a method twice"),
    ('eip712 = { name = "USDC", version = "2" }\n', "", "network.eip155:84532.asset[0]: eip712: needed for eip3009"),
    ("native = true", "", "network.eip155:84532.asset[1]: needs either native = true or a contract"),
    ("decimals = 18", 'decimals = 18\ntransfer = ["permit2"]', "transfer: only a token with a contract"),
    ('symbol = "ETH"', 'symbol = "USDC"', "network.eip155:84532: asset: a symbol or a contract stands twice"),
    ('"eip155:84532"', '"eip155:084532"', "network.eip155:084532.id='eip155:084532': must be a CAIP-2 id"),
    ('"eip155:84532"', '"solana:devnet"', "network.solana:devnet: transfer: x402 payments are made on eip155 networks only"),
    ('x402_name = "base-sepolia"', 'x402_name = "base"', "x402_name: two networks have one name"),
    ('prepaid_as = "eip155:8453/USDC"', 'prepaid_as = "eip155:84532/ETH"', "no such asset with the same decimals"),
    ('prepaid_as = "eip155:8453/USDC"', 'prepaid_as = "eip155:1/USDC"', "no such asset with the same decimals"),
    ('default_asset = "eip155:8453/USDC"', 'default_asset = "eip155:1/USDC"', "default_asset='eip155:1/USDC': no such asset"),
    ("[network", "[networks", "networks.toml: network: Field required"),
    ("default_asset =", "default_asset", "not valid TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "words"), FAULTS, ids=[f"{row[1][:24]}" for row in FAULTS])
def test_a_wrong_file_is_refused_by_field_and_value(tmp_path: Path, right: str, wrong: str, words: str) -> None:
    assert right in SHIPPED
    with pytest.raises(NetworksError) as fault:
        read(tmp_path, SHIPPED.replace(right, wrong))
    assert words in str(fault.value)
    assert str(fault.value).startswith(str(tmp_path / "networks.toml"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworksError, match=r"absent\.toml: cannot be read"):
        load_networks({"TOLLWAY_CHAIN_NETWORKS": str(tmp_path / "absent.toml")})
