"""What README, CONTRIBUTING and docs/ show is so.

Commands in blocks of `sh` are run, each against a project of its own: SQLite, and nothing
else. A command that is too long for that, or that changes something outside, is checked
as far as that goes, with the reason beside it. Code compiles, and finds what it imports
from `jobs`. Options, targets, files and links that a page mentions exist.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

import jobs
from devtools import services
from devtools.tour import environment_of
from jobs.conf import Configuration
from jobs.options import TaskOptions
from tests.conftest import WorkerProcess, eventually

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LANGUAGES = {"ini", "json", "python", "sh", "sql", "text"}


class Block(NamedTuple):
    page: str
    language: str
    text: str


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(language: str | None = None) -> list[Block]:
    return [
        Block(page.name, found, text)
        for page in PAGES
        for found, text in re.findall(
            r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL
        )
        if language in (None, found)
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(
        r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL
    )


def spans() -> Iterator[tuple[str, str]]:
    """Each page's name and a `span` of code in its prose."""
    for page in PAGES:
        for span in re.findall(r"`([^`\n]+)`", prose(page)):
            yield page.name, span


def test_every_block_names_its_language() -> None:
    unknown = [block for block in blocks() if block.language not in LANGUAGES]

    assert unknown == []


# Python.


def id_of(block: Block) -> str:
    return f"{block.page}: {block.text.strip().splitlines()[0]}"


@pytest.mark.parametrize("block", blocks("python"), ids=id_of)
def test_code_compiles_and_finds_what_it_imports(block: Block) -> None:
    tree = ast.parse(textwrap.dedent(block.text))

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobs"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


# Links, files, options.


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page says, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in words}


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"https?:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.name}: {target}")

    assert broken == []


def test_every_file_that_is_named_exists() -> None:
    named = re.compile(r"(jobs|jobsite|tests|docs|devtools|benchmarks|deploy)/[\w./-]*")
    missing = [
        f"{page}: {span}"
        for page, span in spans()
        if (found := named.fullmatch(span.partition("::")[0]))
        and not (ROOT / found[0]).exists()
    ]

    assert missing == []


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))


def test_every_target_of_make_exists() -> None:
    named = [(page, span.split()[1]) for page, span in spans() if span[:5] == "make "]

    assert [pair for pair in named if pair[1] not in targets()] == []


@cache
def options_of(command: str) -> set[str]:
    """What a command of manage.py takes."""
    parser: ArgumentParser = load_command_class(
        get_commands()[command], command
    ).create_parser("manage.py", command)
    return {option for action in parser._actions for option in action.option_strings}


def test_every_command_and_option_exists() -> None:
    """In prose, in tables, in units of systemd: wherever a page names one."""
    wrong = []
    for page in PAGES:
        calls = re.findall(r"manage\.py (\w+)([^`\n|#]*)", page.read_text())
        calls += re.findall(r"`(runworker|newjob|prunejobs)( [^`\n]*)`", prose(page))
        for command, arguments in calls:
            named = re.findall(r"(?<![\w-])--[a-z-]+", arguments)
            if command not in get_commands() or set(named) - options_of(command):
                wrong.append(f"{page.name}: {command}{arguments}")

    assert wrong == []


def programs() -> list[str]:
    """Calls of our own modules, wherever a page has them."""
    called = r"python -m ((?:benchmarks|devtools)\.[^`\n]+)"
    return sorted(
        {
            call.strip()
            for page in PAGES
            for call in re.findall(called, page.read_text())
            if "…" not in call
        }
    )


@pytest.mark.parametrize("call", programs())
def test_every_program_takes_the_options_shown(call: str) -> None:
    module, *arguments = shlex.split(call)
    called = [sys.executable, "-m", module, "--help"]
    shown = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert shown.returncode == 0, shown.stderr
    for argument in arguments:
        assert argument[:2] != "--" or argument in shown.stdout


def test_prose_fits_a_hundred_columns() -> None:
    """So that a change of one word does not change a whole paragraph."""
    generated = re.compile(r"<!-- written by .*: begin -->.*: end -->", re.DOTALL)
    long = [
        f"{page.name}: {line}"
        for page in PAGES
        for line in generated.sub("", prose(page)).splitlines()
        if len(line) > 100 and line[:1] not in "|!"
    ]

    assert long == []


# What is public, and the tables of settings.


def test_the_reference_lists_every_public_name() -> None:
    shown = re.findall(r"`(\w+)`", text_of("docs/reference.md"))

    assert set(jobs.__all__) - set(shown) == set()


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading: its first column, without backquotes, and the others."""
    section = re.split(r"^#+ ", text_of(page), flags=re.MULTILINE)
    [body] = [part for part in section if part.startswith(heading)]
    lines = re.findall(r"^\| `([^`]+)` \| (.*) \|$", body, re.MULTILINE)
    return {first: others.split(" | ") for first, others in lines}


def test_the_table_of_options_is_whole() -> None:
    first_cells = re.findall(r"^\| (`.*?) \|", text_of("docs/tasks.md"), re.MULTILINE)

    shown = re.findall(r"`(\w+)`", " ".join(first_cells))
    assert {*TaskOptions.__annotations__, "takes_context"} - {
        *shown,
        "backend",
    } == set()


def test_the_table_of_settings_is_whole() -> None:
    table = rows("docs/settings.md", "The app: `JOBS`")
    defaults = {key.name.upper(): key.default for key in fields(Configuration)}

    assert list(table) == list(defaults)
    assert {key: ast.literal_eval(row[0][1:-1]) for key, row in table.items()} == (
        defaults
    )


def test_the_table_of_the_environment_is_whole() -> None:
    table = rows("docs/settings.md", "The site: the environment")
    read = re.findall(r"env\.?\w*\(\s*\"([A-Z_]+)\"", text_of("jobsite/settings.py"))

    assert set(table) == {*read, "PORT"}


def test_the_table_of_commands_is_whole() -> None:
    own = {name for name, app in get_commands().items() if app == "jobs"}

    table = rows("docs/settings.md", "Commands")

    assert {name.split()[1] for name in table if "manage.py" in name} == {*own, "check"}
    shown = text_of("docs/settings.md").partition("## Commands")[2]
    standard = BaseCommand().create_parser("manage.py", "x")
    for command in own:
        missing = options_of(command) - set(standard._option_string_actions)
        assert [option for option in missing if option not in shown] == []


# Commands.


def commands() -> list[str]:
    """Each command of the blocks of `sh`, once, as one line without its comment."""
    found = {}
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for command in re.sub(r"(^|\s)#.*", "", line).split(" && "):
                plain = command.strip().removeprefix(".venv/bin/")
                found[" ".join(plain.split())] = True
    return [command for command in found if command]


@dataclass
class Project:
    """The demo site with an empty database of its own, and the workers it was given."""

    directory: Path
    #: SQLite and nothing else, unless these say otherwise.
    variables: dict[str, str] = field(default_factory=dict)
    workers: list[WorkerProcess] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name != "DJANGO_SETTINGS_MODULE"
        }
        return inherited | {
            "DATABASE_URL": f"sqlite:///{self.directory / 'db.sqlite3'}",
            "RABBITMQ_URL": "",
            "SECRET_KEY": "only-for-tests",
            "JOBS_LEASE_SECONDS": "3",
            "DJANGO_SUPERUSER_PASSWORD": "only-for-tests",
            "PYTHONUNBUFFERED": "1",
            **self.variables,
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._found(words),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, *words: str, says: str) -> WorkerProcess:
        log = self.directory / f"output-{len(self.workers)}"
        with log.open("w") as output:
            process = subprocess.Popen(
                self._found(words),
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        started = WorkerProcess(process, log)
        self.workers.append(started)
        started.says(says)
        return started

    def worker(self) -> WorkerProcess:
        started = self.start(
            "python", "manage.py", "runworker", "--processes=1", says="slot"
        )
        if not self.variables:
            eventually(self._has_lease, what="the worker has its lease")
        return started

    def _has_lease(self) -> bool:
        with closing(sqlite3.connect(self.directory / "db.sqlite3")) as database:
            [[count]] = database.execute("SELECT count(*) FROM jobs_worker")
            return bool(count)

    @staticmethod
    def _found(words: tuple[str, ...]) -> list[str]:
        if words[0] == "python":
            return [sys.executable, *words[1:]]
        return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    done = Project(directory).run("python", "manage.py", "migrate", "-v0")
    assert done.returncode == 0, done.stderr
    return directory / "db.sqlite3"


@contextmanager
def running(project: Project) -> Iterator[Project]:
    """Whatever it starts is ended."""
    try:
        yield project
    finally:
        for started in project.workers:
            if started.process.poll() is None:
                started.process.kill()
                started.process.wait()


@pytest.fixture
def project(migrated: Path, tmp_path: Path) -> Iterator[Project]:
    shutil.copy(migrated, tmp_path / "db.sqlite3")
    with running(Project(tmp_path)) as project:
        yield project


def ends_well(project: Project, command: str) -> None:
    """It is run as it stands, and exits with 0."""
    done = project.run(*shlex.split(command))

    assert done.returncode == 0, done.stdout + done.stderr


def ends_well_beside_a_worker(project: Project, command: str) -> None:
    """It is about a worker, or waits for one."""
    project.worker()
    ends_well(project, command)


def queue_exists(project: Project, command: str) -> None:
    """The queue that the page speaks of has had a job."""
    project.run("python", "manage.py", "newjob", "simulate_work", "x", "--queue=mail")
    ends_well(project, command)


def makes_a_user(project: Project, command: str) -> None:
    """It would ask for a name: the test says it instead."""
    ends_well(project, f"{command} --noinput --username ada --email ada@example.com")


def drains(project: Project, command: str) -> None:
    """The worker ends by itself. Placeholders stand for its host and process."""
    worker = project.worker()
    host = os.uname().nodename
    command = command.replace("HOST:PID", f"{host}:{worker.process.pid}")
    ends_well(project, command.replace("NAME", host))

    assert worker.wait() == 0


def works_until_stopped(project: Project, command: str) -> None:
    """It is run until it says that it is there, and then told to stop."""
    says = "slot" if "runworker" in command else "Listening at"
    options = [] if "runworker" in command else ["--bind", "127.0.0.1:0"]
    started = project.start(*shlex.split(command), *options, says=says)

    assert started.stop() == 0


def collects(project: Project, command: str) -> None:
    """The tests that it names are there; they are run by the suite itself."""
    arguments = [word for word in shlex.split(command)[1:] if "=" not in word]
    done = project.run("python", "-m", "pytest", "--collect-only", "-q", *arguments)

    assert done.returncode == 0, done.stdout + done.stderr


def is_a_target(project: Project, command: str) -> None:
    """Installs into the environment, or runs for minutes: its target exists."""
    words = shlex.split(command)[1:]
    names = [word for word in words if "=" not in word]

    assert set(names) <= targets()
    for word in words:
        if "=" in word:
            assert re.search(rf"\b{word.split('=')[0]}\b", text_of("Makefile"))
        if word.startswith("T="):
            collects(project, f"pytest {word[2:]}")


def is_a_variable(project: Project, command: str) -> None:
    """Sets a variable for the command below it: the site knows it."""
    name = command.removeprefix("export ").partition("=")[0]

    assert re.search(rf"^#? ?{name}=", text_of(".env.example"), re.MULTILINE)


def is_a_policy(project: Project, command: str) -> None:
    """Changes a broker for good: a node of our own takes it, if there is one."""
    *words, pattern, policy, apply, queues = shlex.split(command)[1:]
    assert words == ["set_policy", "jobs-lazy"]
    assert re.match(pattern, "jobs.default")
    json.loads(policy)
    with services.RabbitMQNode() as node:
        node.ctl(*words, pattern, policy, apply, queues)


def names_files(project: Project, command: str) -> None:
    """Is run elsewhere (tests/models/test_partitions.py, the Makefile): its files exist."""
    for word in shlex.split(command):
        if re.fullmatch(r"[\w./-]+\.(sql|txt)|\.env\.\w+", word):
            assert (ROOT / word).is_file()


def is_of_compose(project: Project, command: str) -> None:
    """Needs Docker: tests/jobsite/test_docker.py checks the file, this the names."""
    _, _, verb, *words = shlex.split(command)
    assert verb in ("up", "exec")
    if verb == "exec":
        assert re.search(
            rf"^  {words[0]}:$", text_of("docker-compose.yml"), re.MULTILINE
        )


def is_left_alone(project: Project, command: str) -> None:
    """Fetches the project, or moves about in it."""


#: The first pattern that a command begins with decides what is done with it.
WAYS: list[tuple[str, Callable[[Project, str], None]]] = [
    (r"git clone <|cd ", is_left_alone),
    (r"make\b", is_a_target),
    (r"export ", is_a_variable),
    (r"cp |psql |python -m pip ", names_files),
    (r"docker compose ", is_of_compose),
    (r"rabbitmqctl ", is_a_policy),
    (r"pytest", collects),
    (r"python -m (benchmarks|devtools)\.", is_left_alone),  # programs(), above
    (r"python manage\.py runworker|gunicorn ", works_until_stopped),
    (r"python manage\.py createsuperuser", makes_a_user),
    (r"python manage\.py drainworker", drains),
    (r"python manage\.py (pause|resume)queue", queue_exists),
    (r"python manage\.py workerhealth|.* --wait$", ends_well_beside_a_worker),
    (r"python manage\.py |ruff |mypy|lint-imports", ends_well),
]


@pytest.mark.real
@pytest.mark.parametrize("command", commands())
def test_every_command_works(command: str, project: Project) -> None:
    ways = [way for pattern, way in WAYS if re.match(pattern, command)]

    assert ways, "no way to try it: add one to WAYS"
    ways[0](project, command)


@pytest.mark.real
def test_the_variables_of_the_readme_lead_to_rabbitmq_and_postgresql(
    tmp_path: Path,
) -> None:
    named = re.findall(r"^export (\w+)=(\w+)://", text_of("README.md"), re.MULTILINE)
    assert named == [("RABBITMQ_URL", "amqp"), ("DATABASE_URL", "postgres")]
    with environment_of("rabbitmq", tmp_path) as environment:
        variables = {name: environment[name] for name in [*dict(named), "JOBS_PREFIX"]}
        with running(Project(tmp_path, variables)) as project:
            worker = project.worker()
            assert "RabbitMQ" in worker.output
            ends_well(project, "python manage.py newjob simulate_work Hello --wait")
            assert worker.stop() == 0
