"""The files that people start the server with: each is read by the tool that knows its rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefixmux_server.settings import Settings

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy/kubernetes/prefixmux.yaml"
UNIT = ROOT / "deploy/systemd/prefixmux.service"


def tool(name: str, *arguments: object) -> str:
    """What a command of this environment prints; it has to succeed."""
    program = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dockerfile_is_clean() -> None:
    tool("hadolint", ROOT / "Dockerfile")


def test_what_the_image_is_built_from_is_let_in_and_there() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [
        name
        for line in lines
        if line.startswith("COPY ") and not line.startswith("COPY --from")
        for name in line.split()[1:-1]
    ]
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in let_in, name


def test_compose_follows_its_schema() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml")


def test_compose_publishes_to_loopback_and_mounts_what_is_there() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source


def test_the_manifest_is_valid() -> None:
    tool("kubernetes-validate", "--strict", MANIFEST)


def test_stopping_takes_longer_than_the_drain() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prefixmux"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > drain
    assert _pod()["terminationGracePeriodSeconds"] > drain
    assert f"TimeoutStopSec={compose['stop_grace_period'][:-1]}" in UNIT.read_text()


def test_the_pod_runs_without_rights() -> None:
    pod = _pod()
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in [*pod["initContainers"], *pod["containers"]]:
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"] is True
        assert locked["allowPrivilegeEscalation"] is False


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_valid(tmp_path: Path) -> None:
    """Its program is not installed here; everything else is as it stands."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/prefixmux/bin/prefixmux", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_dashboards_are_json() -> None:
    for path in (ROOT / "deploy").rglob("*.json"):
        json.loads(path.read_text())


def _pod() -> dict[str, Any]:
    documents = list(yaml.safe_load_all(MANIFEST.read_text()))
    (found,) = [each for each in documents if each["kind"] == "StatefulSet"]
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod
