"""What is released: wheel and sdist hold all that runs, are the same from the same sources, and are of one version."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 1_790_000_000
#: Of each part that is no module, what the wheel must hold.
HELD = {
    "irs/py.typed",
    "irs/models/bundled/imagenet200/weights.safetensors",
    "irs/models/bundled/imagenet200/labels.txt",
    "irs/models/data/imagenet1k.tsv",
    "irs/models/data/wordnet.tsv",
    "webui/openapi.json",
    "webui/static/app.js",
    "webui/static/page.css",
    "celeryconfig.py",
}


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Return what a program says on standard output; what it says on standard error is shown when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert 0 == done.returncode, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of the sources as they stand: neither builds of before nor anything ignored."""
    folder = tmp_path_factory.mktemp("sources")
    for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        # One that is deleted and not committed yet is no source.
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def dist(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both as `make release` builds them: the sdist of the sources, the wheel of the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, sources, cwd=sources, SOURCE_DATE_EPOCH=str(EPOCH))
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("irs-*.whl")
    return found


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as held:
        return set(held.namelist())


@pytest.mark.slow
def test_the_wheel_holds_page_model_and_what_instances_start_by(wheel: Path) -> None:
    names = names_in(wheel)
    version = wheel.name.split("-")[1]
    shared = {name.partition("/share/irs/")[2] for name in names if name.startswith(f"irs-{version}.data/data/share/irs/")}

    assert HELD <= names
    parts = ("machine", "worker", "front")
    assert {str(file.relative_to(ROOT / "deploy")) for part in parts for file in (ROOT / "deploy" / part).iterdir()} == shared
    tracked = run("git", "ls-files", "irs", "webui", "scaler", cwd=ROOT).split()
    # All that stands in the packages, and nothing that does not.
    assert {name for name in tracked if (ROOT / name).is_file()} == {
        name for name in names if name.startswith(("irs/", "webui/", "scaler/"))
    }


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel_and_says_what_changed(dist: Path, wheel: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("irs-*.tar.gz")
    with tarfile.open(sdist) as held:
        held.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()

    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--outdir",
        tmp_path / "again",
        folder,
        cwd=tmp_path,
        SOURCE_DATE_EPOCH=str(EPOCH),
    )

    assert {"CHANGELOG.md", "LICENSE", "README.md", "constraints.txt", "deploy"} <= {path.name for path in folder.iterdir()}
    assert wheel.read_bytes() == (tmp_path / "again" / wheel.name).read_bytes()


@pytest.mark.slow
# pip unpacks torch and all else that a user gets: minutes of a busy machine.
@pytest.mark.timeout(1800)
def test_a_wheel_in_an_empty_environment_recognises_a_photo(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    program = environment / "bin"
    run(program / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"irs[demo] @ {wheel.as_uri()}", cwd=tmp_path)
    outside = {"HOME": str(tmp_path / "home"), "IRS_HOME": str(tmp_path / "state")}
    photo = "from skimage import data, io; io.imsave('cat.jpg', data.chelsea())"
    run(program / "python", "-c", photo, cwd=tmp_path)

    assert "Image recognition as a service" in run(program / "irs", "--help", cwd=tmp_path, **outside)
    up = (program / "irs", "up", "--model", "imagenet200", "--")
    said = run(*up, program / "irs", "recognize", "--json", "cat.jpg", cwd=tmp_path, **outside)
    (record,) = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert ("ok", "cat.jpg") == (record["status"], record["image"]["name"])
    # Of a cat by name; the model is that of the wheel.
    assert {"Egyptian cat", "tabby", "Persian cat"} & {one["label"] for one in record["labels"][:3]}
    assert str(environment) in run(program / "python", "-c", "import irs; print(irs.__file__)", cwd=tmp_path)


def test_the_version_stands_in_one_place() -> None:
    import irs

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    released = re.findall(r"^## (\d+\.\d+\.\d+)\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    tracked = run("git", "ls-files", "irs", "webui", "scaler", "README.md", "docs", cwd=ROOT).split()
    copies = [
        name
        for name in tracked
        if name.endswith((".py", ".html", ".json"))
        and (ROOT / name).is_file()
        and f'"{project["version"]}"' in (ROOT / name).read_text()
    ]

    assert project["version"] == irs.__version__
    assert [] == copies
    # What is written down last is no newer than what is built.
    assert not released or tuple(map(int, released[0].split("."))) <= tuple(map(int, project["version"].split(".")))
    # That of the API, which stays what it is when irs is released anew.
    assert "1" == json.loads((ROOT / "webui/openapi.json").read_text())["info"]["version"]
