"""A ``systemctl`` for a machine that is a process: runs units as systemd does, with their environment files.

``MACHINE`` names the folder that is the machine's root. A unit that ends its machine (``SuccessAction=poweroff``) is run
until its end; others go on beside. What systemd does besides (users, confinement, restarts) is not done here.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["MACHINE"])


def read(unit: str) -> dict[str, list[str]]:
    """Return the settings of a unit and its drop-ins, in their order."""
    ours = ROOT / "etc/systemd/system" / unit
    files = [ours if ours.exists() else Path("/lib/systemd/system") / unit, *sorted(ours.with_name(f"{unit}.d").glob("*.conf"))]
    found: dict[str, list[str]] = {}
    for line in "\n".join(file.read_text() for file in files).splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def environment(told: dict[str, list[str]], unit: str) -> dict[str, str]:
    """Return what a unit's command sees: nothing of who starts it, but what stands for the instance's role."""
    home = ROOT / "var/lib" / unit.removesuffix(".service")
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in ("PATH", "MACHINE")}
    files = [Path(name).read_text() for name in told.get("EnvironmentFile", [])]
    lines = [line.partition("=") for text in files for line in text.splitlines()]
    return kept | {"HOME": str(home)} | {name: value for name, _, value in lines}


def start(unit: str) -> None:
    told = read(unit)
    # Debian's own units know nothing of the machine's root.
    command = [word.replace("/etc/caddy", f"{ROOT}/etc/caddy") for word in shlex.split(told["ExecStart"][-1])]
    process = subprocess.Popen(command, env=environment(told, unit))
    if "poweroff" in told.get("SuccessAction", []):
        process.wait()
        sys.stdout.write(f"{unit} has ended: poweroff\n")


match sys.argv[1:]:
    case ["enable", "--now", unit] | ["restart", "caddy.service" as unit]:
        start(unit)
    case ["poweroff"]:
        sys.stdout.write("poweroff\n")
    case ["daemon-reload"] | ["restart", "systemd-journald.service"] | ["enable", "caddy.service"]:
        pass
    case others:
        sys.exit(f"systemctl: {others} is not known here")
