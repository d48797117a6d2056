"""Programs that the tests drive: installed ones, or packages where that is allowed."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

#: An alternative to installing a server.
ON_ITS_PORT = ", start it on its usual port"


class Missing(Exception):
    """A service or a program is missing. The message says what to do."""


def chromium() -> str:
    """The path of a Chromium, or Missing."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return program("chromium", package="chromium")


def program(name: str, *, package: str) -> str:
    """The path of an installed program, or Missing."""
    return str(directory_of(name, package, "/usr/bin") / name)


def directory_of(name: str, package: str, pattern: str, instead: str = "") -> Path:
    """The directory of an installed program, or Missing.

    `pattern` is where Debian's package puts it, should that not be on the PATH.
    `instead` names an alternative to installing it.
    """
    found = _look(name, pattern)
    if not found:
        install(package, instead)
        found = _look(name, pattern)
    if not found:
        raise Missing(f"{package} was installed, and yet there is no {name}")
    return found


def _look(name: str, pattern: str) -> Path | None:
    if found := sorted(Path("/").glob(f"{pattern.lstrip('/')}/{name}")):
        return found[-1].parent
    path = shutil.which(name)
    return Path(path).parent if path else None


@functools.cache
def install(package: str, instead: str = "") -> None:
    """Install a package of Debian's where that is possible and allowed; else Missing.

    CI=… allows it, and so does INSTALL=1. No other machine changes because tests ran.
    """
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Missing(f"{package} is not here: install it{instead}")
    if not (os.environ.get("CI") or os.environ.get("INSTALL")):
        raise Missing(
            f"{package} is not here: install it{instead}, "
            "or set INSTALL=1 to have the tests install it"
        )
    sys.stderr.write(f"installing {package} …\n")
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
    ):
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise Missing(
                f"{package} is not here, and {' '.join(command)} failed:\n{done.stdout}"
            )
