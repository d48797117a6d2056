"""The catalogue of messages in jobs/locale, for translators.

    python -m devtools.messages           write it again, from the sources
    python -m devtools.messages --check   exit with 1 if it is out of date

It is what `manage.py makemessages` writes. That needs GNU gettext: without it a laptop skips
the check, and CI installs it, or fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from devtools.services import programs

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = Path("jobs/locale/en/LC_MESSAGES/django.po")
#: Changes with every run.
CREATION_DATE = re.compile(r'^"POT-Creation-Date: .*\n', re.MULTILINE)


def extracted() -> str:
    """The catalogue as it should be, or Missing.

    It is made in a copy of jobs/: only what is written on purpose changes the tree.
    """
    programs.program("xgettext", package="gettext")
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        ignore = shutil.ignore_patterns("__pycache__", "static", "migrations")
        shutil.copytree(ROOT / "jobs", copy / "jobs", ignore=ignore)
        (copy / CATALOGUE).parent.mkdir(parents=True, exist_ok=True)
        command = "makemessages --locale en --add-location file --no-obsolete --no-wrap"
        subprocess.run(
            [sys.executable, "-m", "django", *command.split(), "--verbosity", "0"],
            cwd=copy,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": ""},
            check=True,
        )
        return (copy / CATALOGUE).read_text()


def without_date(catalogue: str) -> str:
    return CREATION_DATE.sub("", catalogue)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    try:
        should = extracted()
    except programs.Missing as missing:
        sys.stderr.write(f"{missing}: {CATALOGUE} is not looked at\n")
        return 1 if os.environ.get("CI") else 0
    now = (ROOT / CATALOGUE).read_text() if (ROOT / CATALOGUE).exists() else ""
    if without_date(now) == without_date(should):
        return 0
    if options.check:
        sys.stderr.write(
            f"{CATALOGUE} is out of date: run python -m devtools.messages\n"
        )
        return 1
    (ROOT / CATALOGUE).parent.mkdir(parents=True, exist_ok=True)
    (ROOT / CATALOGUE).write_text(should)
    sys.stderr.write(f"{CATALOGUE} is written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
