"""Every page of the documents is typed as it stands, page by page, in a folder of its own with the files it speaks of.

A page brings up the service that it tells the reader to bring up; one that tells of none finds one running, as a
reader of it would. What is typed but not run here stands in ``ELSEWHERE`` with its reason; a block that is new is run.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest
from documents import PYTHON, ROOT, Block, blocks, commands, pages
from serving import free_port
from waiting import eventually

from irs.local import child

pytestmark = pytest.mark.slow

MODEL = "imagenet200"
BIN = Path(sys.prefix) / "bin"
READY_S, COMMAND_S, END_S = 90.0, 600.0, 60.0

#: Commands that are not run, and why; that they can be typed is shown by tests/unit/test_docs_commands.py.
ELSEWHERE = {
    r"make setup": "it made the environment that this runs in",
    r"make test": "these are the tests",
    r"git clone ": "GitHub cannot be reached from everywhere; the commands run where the clone would be",
    r"cd irs$": "the clone",
    r"aws ": "it needs an account of AWS",
    r"packer ": "it needs an account of AWS; tests/unit/test_deploy_files.py validates what it reads",
    r"docker ": "it needs a registry; tests/unit/test_deploy_files.py lints the Dockerfile",
    r"make release": "tests/journey/test_release.py",
    r"irs bench model --all": "it takes all cores for minutes; with one model it is run",
    r"python tools/": "a measurement that takes minutes; what it measured stands beside it",
}
#: Commands that run until they are told to end, and what they say once they run.
SERVING = {
    r"irs up (?!.* -- )": r"irs +is up",
    r"irs web": r"the page is at (http://\S+)",
    r"irs worker (?!.*--check)": r"ready",
    r"(IRS_\w+=\S+ )?irs scaler run": r"scaler|leads|decided|standby",
    r"irs janitor": r"",
    r"irs drops": r"",
    r"irs flower": r"Flower is at",
    r"celery -A irs flower": r"Visit me at|Connected|http://",
    r"irs status --watch": r"queue",
}
#: What stands in the documents for something else, or for what would take an hour: put in its place before it is run.
IN_PLACE: dict[str, Callable[[Reader], str]] = {
    r"\bJOB\b": lambda reader: reader.job,
    r"\bID\b": lambda reader: reader.job,
    r"\bWORKER\b": lambda reader: reader.worker,
    r"\bQUEUE\b": lambda _: "irs-requests",
    r"\b(TRAIN|VAL)\b": lambda _: "pictures",
    r"\bFOLDER\b": lambda _: "holiday",
    r"--minutes 30\b": lambda _: "--epochs 1",
    r"(?<=--epochs )16\b": lambda _: "1",
    r"\bresnet18\b(?!@)": lambda _: MODEL,  # its weights are not on every machine
    r"\bmy-name-worker\b": lambda _: "irs-worker",  # the launch template of the embedded cloud
    r"\b4f1c09aa\b": lambda reader: reader.digest("shoes"),
    r"\b2026-01-31\b": lambda _: time.strftime("%Y-%m-%d", time.gmtime()),
}
#: What on AWS an operator starts with the stack's rights; `irs up` starts its own with those of the embedded cloud.
FLEET = r"(IRS_\w+=\S+ )?(irs (worker|scaler run)|celery) "
ADDRESS = r"http://127\.0\.0\.1:8000"
#: What a page takes for granted before its first line.
BEFORE = {
    "docs/models.md": "irs models push older/shoes && irs models roll shoes",
    "docs/own-model.md": "irs models push older/shoes-model && irs models roll shoes-model",
}
COMMANDING = ("docs/monitoring.md",)
#: What a program of a page takes for granted, in Python.
GIVEN = {
    "README.md": """
import irs
from irs.app import app
from irs.cloud import get_cloud
get_cloud().input.put("photos/dog.jpg", open("dog.jpg", "rb").read(), content_type="image/jpeg")
""",
    "docs/rekognition.md": """
import os
os.environ["IRS_WEB_TOKEN"] = "0" * 32
""",
}


def is_program(block: Block) -> bool:
    """Whether it is Python that is run as it is."""
    return block.language == PYTHON and not block.saved_as


@dataclass
class Serving:
    """A program that runs in a terminal of its own."""

    command: str
    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> None:
        """Ctrl-C, as the reader would; a worker is told to end, for Celery ends with 1 at Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM if " worker " in self.command else signal.SIGINT)
        assert self.process.wait(END_S) in (0, 130), f"{self.command}\n{self.log.read_text()}"


@dataclass
class Reader:
    """Somebody who types a page from its top to its end."""

    page: str
    folder: Path
    environment: dict[str, str]
    serving: list[Serving] = field(default_factory=list)
    _job: dict[str, str] = field(default_factory=dict)

    def types(self, command: str) -> None:
        """Run a command as it stands, but for what is put in its place."""
        if any(re.match(pattern, command) for pattern in ELSEWHERE):
            return
        plain = command.replace(".venv/bin/", "")
        for pattern, value in IN_PLACE.items():
            if re.search(pattern, command):
                command = re.sub(pattern, value(self), command)
        if (said := next((said for pattern, said in SERVING.items() if re.match(pattern, plain)), None)) is not None:
            self.serves(command, said)
        elif command.startswith("export "):
            told = self.run(f"{command}\nenv -0")
            self.environment |= dict(one.split("=", 1) for one in told.split("\0") if "=" in one)
        else:
            self.run(re.sub(r"^make ", f"make -C {ROOT} -o .venv/.done ", command))

    def run(self, command: str) -> str:
        """Run a command to its end; return what it answers."""
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment_of(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        logs = "\n".join(f"{one.command}:\n{one.log.read_text()[-3000:]}" for one in self.serving)
        assert 0 == ran.returncode, f"{self.page}: {command}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}\n{logs}"
        return ran.stdout

    def environment_of(self, command: str) -> dict[str, str]:
        """What a command finds in its environment; one of the fleet also what leads to the cloud and may be done there."""
        if not re.match(FLEET, command.replace(".venv/bin/", "") + " "):
            return dict(self.environment)
        stored = json.loads((Path(self.environment["IRS_HOME"]) / "endpoint.json").read_text())
        return self.environment | {
            "IRS_ENDPOINT_URL": f"http://127.0.0.1:{stored['port']}",
            "AWS_ACCESS_KEY_ID": stored["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": stored["secret_access_key"],
            "IRS_REGION": stored["region"],
            "IRS_MONITORING": "1",
            "IRS_SCALER_TEMPLATE": "irs-worker",
        }

    def serves(self, command: str, said: str) -> None:
        """Start a program in a terminal of its own, and wait until it says that it runs."""
        if re.match(r"\S*irs up ", command):
            # There is one service on this machine: another takes its place.
            self.ends()
        environment = self.environment_of(command)
        # Several pages and Flowers run at once, and the usual ports may be taken.
        environment |= {"IRS_WEB_PORT": str(free_port()), "IRS_FLOWER_PORT": str(free_port())}
        log = self.folder / f"terminal-{len(self.serving)}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = child.start(
                ["bash", "-c", f"exec {command}"],
                environment=environment,
                at_parents_end=signal.SIGKILL,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.serving.append(one := Serving(command, process, log))

        def says() -> bool:
            assert process.poll() is None, f"{self.page}: {command}\n{log.read_text()}"
            return re.search(said, log.read_text()) is not None

        eventually(says, within_s=READY_S, every_s=0.1)
        assert one.process.poll() is None

    def ends(self) -> None:
        """End what runs in terminals, the youngest first."""
        while self.serving:
            self.serving.pop().end()

    def reads(self, block: Block) -> None:
        """Type a block, save it where the page says so, or run it as a program."""
        if block.saved_as:
            (self.folder / block.saved_as).write_text(block.text)
        elif block.language == PYTHON:
            text = re.sub(ADDRESS, self.page_address, block.text)
            (self.folder / "block.py").write_text(GIVEN.get(self.page, "") + text)
            self.run("irs up --workers 0 -- python block.py")
        elif block.is_typed:
            for command in commands(block):
                self.types(command)

    @property
    def job(self) -> str:
        """A job of this page, handed in when it is first asked for."""
        return self._record()["job"]

    @property
    def worker(self) -> str:
        """A worker that runs."""
        return self._record()["worker"].removeprefix("irs@")

    @property
    def page_address(self) -> str:
        """Where the page is served."""
        found = re.search(r"page +(?:is at )?(http://[^\s/]+)", self.serving[0].log.read_text())
        assert found, self.serving[0].log.read_text()
        return found[1]

    def digest(self, name: str) -> str:
        """The beginning of the digest of a model directory, as addresses have it."""
        shown = json.loads(self.run(f"irs models show --json ./{name}"))
        return str(shown["digest"]).removeprefix("sha256:")[:8]

    def _record(self) -> dict[str, str]:
        if not self._job:
            self._job = json.loads(self.run("irs recognize --json dog.jpg"))
        return self._job


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    folder = tmp_path / "irs"
    furnish(folder, request.param)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IRS_", "AWS_"))}
    one = Reader(
        request.param,
        folder,
        clean
        | {
            "PATH": f"{BIN}:{clean['PATH']}",
            "HOME": str(tmp_path / "home"),
            "IRS_HOME": str(tmp_path / "home" / "irs"),
            "IRS_WEB_PORT": "0",
            "IRS_FLOWER_PORT": "0",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )
    yield one
    for serving in one.serving:
        # Ended already where the test passed.
        serving.process.kill()
        serving.process.wait()


def furnish(folder: Path, page: str) -> None:
    """Put into a folder what the pages speak of: photos, class folders, models, traces, and the repository's own files."""
    from PIL import Image

    chance = random.Random(1)
    for name, sample in {"boots": "chelsea.png", "sandals": "coffee.png"}.items():
        picture = Image.open(str(files("skimage") / "data" / sample)).convert("RGB")
        (folder / "shoes" / name).mkdir(parents=True)
        for number in range(12):
            left, top = chance.randrange(100), chance.randrange(50)
            picture.crop((left, top, left + 200, top + 200)).save(folder / "shoes" / name / f"{number}.jpg")
    for name in ("holiday", "photos"):
        shutil.copytree(folder / "shoes" / "boots", folder / name)
    for name in ("dog.jpg", "cat.jpg"):
        shutil.copy(folder / "holiday" / "0.jpg", folder / name)
    for name in ("shoes", "shoes-model"):
        copy_model(folder / "older" / name, name)
    if page == "docs/models.md":
        # There `shoes` is a model already.
        (folder / "shoes").rename(folder / "pictures")
        copy_model(folder / "shoes", "shoes", temperature=1.5)
    for name in ("bursty-day", "flash-crowd", "steady-ramp"):
        (folder / f"{name}.csv").write_text("second,arrivals\n" + "".join(f"{second},3\n" for second in range(0, 300, 2)))
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "tools").symlink_to(ROOT / "tools")


def copy_model(folder: Path, name: str, **changes: float) -> None:
    """Copy the bundled model under another name; with ``changes`` of its description its digest is another."""
    shutil.copytree(Path(str(files("irs.models"))) / "bundled" / MODEL, folder)
    description = folder / "model.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"name": name} | changes))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "reader", [page for page in pages() if any(block.is_typed or is_program(block) for block in blocks(page))], indirect=True
)
def test_a_page_can_be_typed_from_its_top_to_its_end(reader: Reader) -> None:
    found = blocks(reader.page)
    typed = [command.replace(".venv/bin/", "") for block in found if block.is_typed for command in commands(block)]
    brings_up = any(re.match(r"irs up ", command) for command in typed)
    if not brings_up and (any(re.match(r"irs|celery", command) for command in typed) or any(map(is_program, found))):
        # Who commands workers wants one that stays.
        reader.serves(f"irs up --model {MODEL}{' --workers 1' if reader.page in COMMANDING else ''}", r"irs +is up")
    if before := BEFORE.get(reader.page):
        reader.run(f"irs up --workers 0 -- bash -c '{before}'")

    for block in found:
        reader.reads(block)

    reader.ends()
