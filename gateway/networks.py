"""Networks and assets as config/networks.toml declares them: read once at start, checked as a whole.

One file says what the catalog may price in (catalog/assets.py writes it to the database) and what x402 may move
(payments). Everything here is data; nothing speaks to a chain. A wrong value stops the start with a line that names the
file, the field, the value and the fix.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.eip55 import is_checksummed
from gateway.settings import SettingsError, nearest

TransferMethod = Literal["eip3009", "permit2"]
OF_A_NETWORK = ("rpc", "facilitator", "facilitator_token")
"""What TOLLWAY_CHAIN_<chain id>_… says of a network."""
CHAIN_VARIABLES = (
    "TOLLWAY_CHAIN_NETWORKS", "TOLLWAY_CHAIN_TREASURY",
    "TOLLWAY_CHAIN_RPC",  # of `tollway dev` alone
    "TOLLWAY_CHAIN_BUYER_ADDRESS",
    *(f"TOLLWAY_CHAIN_{who}_{what}" for who in ("SIGNER", "BUYER") for what in
      ("KEY", "KEYSTORE", "PASSWORD_FILE", "PASSWORD")),
)  # fmt: skip
# The chains on which nothing has a price. Any other is taken for one with real money.
TEST_CHAINS = {"eip155:84532", "eip155:11155111", "eip155:17000", "eip155:421614", "eip155:11155420", "eip155:80002",
               "eip155:43113", "eip155:1337", "eip155:31337"}  # fmt: skip
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TEST_FACILITATORS = {"x402.org", "www.x402.org"}
_CAIP2 = re.compile(r"[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}", re.ASCII)
_EIP155 = re.compile(r"eip155:([1-9][0-9]{0,17})", re.ASCII)


class NetworksError(SettingsError):
    """networks.toml is wrong. The message has one line per fault and is safe to print: node URLs are left out."""


def _contract(value: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", value) or not is_checksummed(value):
        raise ValueError("must be 0x and 40 hexadecimal digits in the mixed case of EIP-55; copy it from the explorer")
    return value


Contract = Annotated[str, AfterValidator(_contract)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Eip712Domain(_Entry):
    """The name and version in a token contract's EIP-712 domain; chain and contract stand elsewhere."""

    name: str = Field(min_length=1, max_length=64)
    version: str = Field(min_length=1, max_length=16)


class AssetEntry(_Entry):
    """One asset of a network. `transfer` lists how x402 may move it, the preferred way first."""

    symbol: str = Field(pattern=r"^[A-Za-z0-9.]{1,16}$")
    name: str = Field(min_length=1, max_length=64)
    decimals: int = Field(ge=0, le=18)
    contract: Contract | None = None
    native: bool = False
    stablecoin: bool = False
    transfer: tuple[TransferMethod, ...] = ()
    eip712: Eip712Domain | None = None
    prepaid_as: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> AssetEntry:
        if self.native == (self.contract is not None):
            raise ValueError("needs either native = true or a contract")
        if self.transfer and self.contract is None:
            raise ValueError("transfer: only a token with a contract can be moved by a signature")
        if len(set(self.transfer)) != len(self.transfer):
            raise ValueError("transfer: names a method twice")
        if "eip3009" in self.transfer and self.eip712 is None:
            raise ValueError("eip712: needed for eip3009; read name() and version() of the contract")
        return self


class Network(_Entry):
    """One chain. `id` is CAIP-2; contracts have the addresses that they have on nearly every chain."""

    id: str
    name: str = Field(min_length=1, max_length=64)
    x402_name: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,32}$")
    rpc: str | None = Field(default=None, repr=False)
    facilitator: str | None = None
    facilitator_token: str | None = Field(default=None, repr=False)
    confirmations: int = Field(default=3, ge=0, le=1_000)
    block_seconds: float = Field(default=2.0, gt=0, le=600)
    erc6492_factories: tuple[Contract, ...] = ()
    permit2: Contract = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
    exact_permit2_proxy: Contract = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001"
    upto_permit2_proxy: Contract = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
    multicall3: Contract = "0xcA11bde05977b3631167028862bE2a173976CA11"
    assets: tuple[AssetEntry, ...] = Field(default=(), alias="asset")

    @field_validator("id")
    @classmethod
    def _caip2(cls, value: str) -> str:
        if not _CAIP2.fullmatch(value) or (value.startswith("eip155:") and not _EIP155.fullmatch(value)):
            raise ValueError("must be a CAIP-2 id such as eip155:8453")
        return value

    @field_validator("facilitator")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is not None and not _is_http_url(value):
            raise ValueError("must be an http:// or https:// URL")
        return value

    @field_validator("rpc")
    @classmethod
    def _http_urls(cls, value: str | None) -> str | None:
        if value is not None and not all(map(_is_http_url, value.split() or [""])):
            raise ValueError("must be an http:// or https:// URL, or several with spaces between them")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Network:
        symbols = [asset.symbol for asset in self.assets]
        contracts = [asset.contract for asset in self.assets if asset.contract]
        if len(set(symbols)) != len(symbols) or len(set(contracts)) != len(contracts):
            raise ValueError("asset: a symbol or a contract stands twice")
        host = urlsplit(self.facilitator or "").hostname or ""
        if self.live and host.rstrip(".") in TEST_FACILITATORS:
            raise ValueError(f"facilitator: {host} settles on test networks only, and this network is live")
        if self.facilitator_token and self.facilitator and not _is_private_enough(self.facilitator):
            raise ValueError("facilitator: must be https://, because facilitator_token is sent there")
        if _EIP155.fullmatch(self.id) is None and any(asset.transfer for asset in self.assets):
            raise ValueError("transfer: x402 payments are made on eip155 networks only")
        return self

    @property
    def elsewhere(self) -> bool:
        """Return whether it has a node on another host: one on this host may be a copy for tests."""
        return any(urlsplit(url).hostname not in LOOPBACK for url in self.nodes)

    @property
    def live(self) -> bool:
        """Return whether real money may be moved on it."""
        return self.id.startswith("eip155:") and self.id not in TEST_CHAINS

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the URLs of its nodes, the preferred one first."""
        return tuple((self.rpc or "").split())

    @property
    def chain_id(self) -> int:
        """Return the EVM chain id. Only for eip155 networks."""
        return int(self.id.removeprefix("eip155:"))

    def asset(self, symbol: str) -> AssetEntry | None:
        """Return the asset of a symbol, if this network has it."""
        return next((asset for asset in self.assets if asset.symbol == symbol), None)


class Networks(_Entry):
    """The whole file."""

    default_asset: str
    networks: tuple[Network, ...] = Field(alias="network")

    @field_validator("networks", mode="before")
    @classmethod
    def _by_id(cls, value: object) -> object:
        tables = _tables(value)
        if not tables:
            raise ValueError('needs at least one table such as [network."eip155:8453"]')
        return tuple({**table, "id": name} for name, table in tables)

    @model_validator(mode="after")
    def _whole(self) -> Networks:
        known = {f"{network.id}/{asset.symbol}": asset for network in self.networks for asset in network.assets}
        if self.default_asset not in known:
            raise ValueError(f"default_asset={self.default_asset!r}: no such asset in this file")
        for name, asset in known.items():
            kept = known.get(asset.prepaid_as or name)
            if kept is None or kept.decimals != asset.decimals:
                raise ValueError(f"{name}.prepaid_as={asset.prepaid_as!r}: no such asset with the same decimals")
        names = [network.x402_name for network in self.networks if network.x402_name]
        if len(set(names)) != len(names):
            raise ValueError("x402_name: two networks have one name")
        return self

    def find(self, network_id: str) -> Network | None:
        """Return the network of a CAIP-2 id, if it is configured."""
        return next((network for network in self.networks if network.id == network_id), None)


def _is_http_url(value: str) -> bool:
    return urlsplit(value).scheme in ("http", "https") and bool(urlsplit(value).hostname)


def _is_private_enough(url: str) -> bool:
    """Say whether what is sent there cannot be read on the way: TLS, or this host."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def networks_file() -> Path:
    """Return config/networks.toml: of the checkout, or the copy inside the installed package."""
    checkout = Path(__file__).resolve().parents[1] / "config" / "networks.toml"
    return checkout if checkout.is_file() else Path(str(files("gateway") / "_config" / "networks.toml"))


def load_networks(environ: Mapping[str, str] | None = None) -> Networks:
    """Read the file that TOLLWAY_CHAIN_NETWORKS names (default: the shipped one). Raises NetworksError.

    TOLLWAY_CHAIN_<chain id>_RPC gives a network its node (or several, with spaces between them), ..._FACILITATOR and
    ..._FACILITATOR_TOKEN its external facilitator; they win over the file, also when they are set to nothing.
    """
    env = os.environ if environ is None else environ
    place = Path(env["TOLLWAY_CHAIN_NETWORKS"]) if env.get("TOLLWAY_CHAIN_NETWORKS") else networks_file()
    try:
        tree = tomllib.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise NetworksError(f"{place}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NetworksError(f"{place}: not valid TOML: {error}") from None
    _refuse_unknown(tree, env)
    _take_nodes(tree, env)
    try:
        return Networks.model_validate(tree)
    except ValidationError as error:
        raise NetworksError("\n".join(_explain(place, tree, fault) for fault in error.errors())) from None


def _tables(value: object) -> list[tuple[str, dict[str, Any]]]:
    """Return what of a TOML table are tables themselves."""
    entries = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    return [(name, cast("dict[str, Any]", table)) for name, table in entries.items() if isinstance(table, dict)]


def _prefix(network_id: str) -> str:
    return f"TOLLWAY_CHAIN_{network_id.removeprefix('eip155:')}_"


def _refuse_unknown(tree: Mapping[str, Any], env: Mapping[str, str]) -> None:
    """Refuse a variable that nothing would read: a typing error, or a network that the file does not have."""
    own = {_prefix(name) + field.upper() for name, _ in _tables(tree.get("network")) for field in OF_A_NETWORK}
    known = {*CHAIN_VARIABLES, *own}
    unknown = sorted(name for name in env if name.startswith("TOLLWAY_CHAIN_") and name not in known)
    if unknown:
        raise NetworksError("\n".join(f"{name}: no such setting{_instead(name, known)}" for name in unknown))


def _instead(name: str, known: set[str]) -> str:
    """Say what was meant. Of another chain's variable only the chain is wrong: that money goes elsewhere is no typo."""
    if re.fullmatch(r"TOLLWAY_CHAIN_[0-9]+_(RPC|FACILITATOR|FACILITATOR_TOKEN)", name):
        networks = sorted(variable for variable in known if variable.endswith("_RPC") and variable[14].isdigit())
        return f", because networks.toml lacks that network; it has {', '.join(networks)}"
    return nearest(name, known).replace("`tollway config check --list` prints them all", "docs/settlement.md has them")


def _take_nodes(tree: Mapping[str, Any], env: Mapping[str, str]) -> None:
    for network_id, table in _tables(tree.get("network")):
        for name in OF_A_NETWORK:
            value = env.get(_prefix(network_id) + name.upper())
            if value is None:
                continue
            table.pop(name, None)
            if value.strip():
                table[name] = value


def _explain(place: Path, tree: Mapping[str, Any], fault: Any) -> str:
    path = list(fault["loc"])
    if path[:1] == ["network"] and len(path) > 1:
        path[1] = _tables(tree["network"])[path[1]][0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    value = fault["input"]
    shown = "" if isinstance(value, dict | list | tuple | BaseModel) else f"={value!r}"
    shown = "='***'" if path[-1:] in (["rpc"], ["facilitator_token"]) else shown
    words = "no such field" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    return ": ".join(part for part in (str(place), field + shown, words) if part)
