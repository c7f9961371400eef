"""The image: pinned, small, without root, and told no secret; the composition likewise."""

from __future__ import annotations

import fnmatch
import re

from tests.house.source import ROOT, files

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
STAGES = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.M)[1:]
PINNED = re.compile(r"[a-z0-9./-]+:\d[\w.-]*")


def test_every_image_has_a_version() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) + [
        image for image in re.findall(r"^\s+image: (\S+)", COMPOSE, re.M) if image != "tollway"
    ]
    assert len(images) >= 4
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_the_gateway_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", STAGES[-1], re.M)
    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) >= 10_000
    last = STAGES[-1].rindex("\nUSER ")
    assert not re.search(r"^(?:RUN|COPY|ADD) ", STAGES[-1][last + 1 :], re.M), "nothing is changed after that"


def test_the_last_stage_takes_only_the_installed_program() -> None:
    assert re.findall(r"^COPY (.*)$", STAGES[-1], re.M) == ["--from=build /opt/tollway /opt/tollway"]
    assert "ADD " not in DOCKERFILE
    assert not re.search(r"curl|wget|apt-get", DOCKERFILE)


def test_installation_is_by_hash_from_the_lock() -> None:
    for line in re.findall(r"pip install [^\\\n]*", DOCKERFILE):
        assert "--require-hashes" in line or line.rstrip().endswith("/tmp/wheel/*.whl"), line


def test_it_can_be_stopped_and_asked_how_it_is() -> None:
    assert "STOPSIGNAL SIGTERM" in STAGES[-1]
    assert "/health/live" in STAGES[-1]
    assert re.search(r'^CMD \["tollway", "serve"\]$', STAGES[-1], re.M), "exec form: the signal reaches the gateway"


def test_no_secret_is_built_in() -> None:
    assert not re.search(r"^(?:ENV|ARG) .*(?:PASSWORD|SECRET|TOKEN|KEY)", DOCKERFILE, re.M)
    for value in re.findall(r"(?:PASSWORD|SECRET_KEYS|TOKEN): (.*)$", COMPOSE, re.M):
        assert value.startswith("${"), value
    assert ":?" in COMPOSE, "a missing secret stops the start"


def context() -> list[str]:
    """Return the tracked files that .dockerignore lets into the build."""
    kept: dict[str, bool] = {}
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            name = pattern.removeprefix("!")
            for path in files():
                if fnmatch.fnmatch(path, name) or fnmatch.fnmatch(path, f"{name}/*"):
                    kept[path] = pattern.startswith("!")
    return [path for path in files() if kept.get(path, True)]


def test_the_build_sees_only_what_the_wheel_is_made_of() -> None:
    tops = {path.partition("/")[0] for path in context()}
    packages = {"pricing", "gateway", "admin_api", "config"}
    assert tops == packages | {"pyproject.toml", "README.md", "LICENSE", "requirements.lock", "requirements-dev.lock"}
    assert sum((ROOT / path).stat().st_size for path in context()) < 4_500_000


def test_containers_may_do_little() -> None:
    for line in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"):
        assert line in COMPOSE
    for ports in re.findall(r"ports: \[(.*)\]", COMPOSE):
        assert ports.startswith('"127.0.0.1:'), "nothing is published to the network unasked"
