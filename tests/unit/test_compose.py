"""The team's compose file is one: by the specification, and by rules of our own."""

import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from uni_moe.workspace import FILES

DEPLOY = Path(__file__).parents[2] / ".deploy"
FILE = DEPLOY / "compose.yaml"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|USER$")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_the_specification_reads_it():
    spec = pytest.importorskip("compose_spec", reason="it has no wheel for this machine")
    text = FILE.read_text(encoding="utf-8")
    spec.PyCompose.from_yaml(text).validate()
    for right, wrong in (("ports:", "prots:"), ("interval: 5s", "interval: soon")):
        with pytest.raises(ValueError, match=r"prots|interval|soon|duration"):
            spec.PyCompose.from_yaml(text.replace(right, wrong, 1)).validate()


def test_docker_reads_it_where_it_can(tmp_path):
    docker = shutil.which("docker")
    asked = docker and subprocess.run(
        [docker, "compose", "version"], capture_output=True, check=False
    )
    if not asked or asked.returncode:
        pytest.skip("docker compose is not installed")
    env = tmp_path / ".env"
    names = re.findall(r"^(\w+)=", (DEPLOY / ".env.example").read_text(), re.M)
    env.write_text("".join(f"{name}=x\n" for name in names))
    words = ["compose", "--file", str(FILE), "--env-file", str(env), "config", "--quiet"]
    done = subprocess.run([docker, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_who_waits_for_a_service_waits_until_it_is_healthy(compose):
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert "healthcheck" in services[other], other


def test_every_port_is_on_loopback(compose):
    ports = [port for one in compose["services"].values() for port in one.get("ports", ())]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_every_secret_comes_from_the_environment_and_the_example_holds_none(compose):
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                assert re.fullmatch(r"\$\{\w+(:\?[^}]*)?\}", value), name
            for password in re.findall(r"://[^:/]+:([^@]+)@", str(value)):
                assert re.fullmatch(r"\$\{\w+\}", password), name
    text = FILE.read_text(encoding="utf-8")
    example = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    told = dict(re.findall(r"^(\w+)=(.*)$", example, re.M))
    assert set(told) == set(re.findall(r"\$\{(\w+)", text))
    assert set(told.values()) == {""}
    ignored = (DEPLOY.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/.deploy/.env" in ignored
    assert ".deploy/.env" in (DEPLOY.parent / ".dockerignore").read_text().splitlines()


def test_every_image_is_pinned_and_every_volume_has_a_name(compose):
    for service in compose["services"].values():
        tag = service["image"].partition(":")[2]
        assert re.search(r"\d", tag), service["image"]
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_file(), volume


def test_ours_is_the_version_that_is_here(compose):
    version = re.search(r'^version = "(.+)"', (DEPLOY.parent / "pyproject.toml").read_text(), re.M)
    ours = [one["image"] for one in compose["services"].values() if "build" in one]
    assert set(ours) == {f"uni-moe:{version[1]}"}
    assert (DEPLOY / "Dockerfile").is_file()


def test_the_dashboard_reads_alone(compose):
    service = compose["services"]["dashboard"]
    address = service["environment"]["UNI_MOE_DATABASE_URL"]
    assert "://uni_moe_reader:${READER_PASSWORD}@postgres:" in address
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert service["read_only"] is True
    assert "AWS_SECRET_ACCESS_KEY" not in service["environment"]
    assert "dashboard" in re.search(r"\[([\w,]+)\]\"", (DEPLOY / "Dockerfile").read_text())[1]


def test_only_one_dashboard_is_started(compose):
    assert "--no-dashboard" in compose["services"]["worker"]["command"]


def is_copied(path):
    """Say whether an image gets a file; of the lines of .dockerignore the last that fits counts."""
    above = [str(one) for one in (Path(path), *Path(path).parents)]
    left_out = False
    for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines():
        if any(fnmatch(one, line.lstrip("!")) for one in above):
            left_out = not line.startswith("!")
    return not left_out


def test_the_image_holds_what_the_package_and_a_new_workspace_are_made_of():
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*FILES, "dvc.yaml", "constraints.txt", "pyproject.toml", project["project"]["readme"]]
    needed += [*wheel["packages"], *wheel["force-include"], "uni_moe/recipes/smoke.yaml"]
    assert [path for path in needed if not is_copied(path)] == []
    copied = re.findall(r"^COPY (.+)$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert copied == [". ."]
    for path in ("data/raw/a.png", ".deploy/.env", ".dvc/cache/files", "registry.sqlite-wal"):
        assert not is_copied(path), path


def test_a_database_that_is_still_being_made_is_not_healthy(compose):
    """Until then it listens on a socket alone, where `pg_isready` finds it without a host."""
    words = compose["services"]["postgres"]["healthcheck"]["test"]
    assert words[words.index("--host") + 1] == "127.0.0.1"
