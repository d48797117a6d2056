"""Real services for the tests: RabbitMQ, PostgreSQL, and the programs that tests drive.

A service is looked for in this order: what answers at the address in the environment;
what answers on the standard local port; a private one, started from the installed
program; the same after installing it (as root, with apt-get). If all fail, `Missing`
says in one sentence what to do. Whatever was started here ends with this process,
however this process ends.

As a command it does that once for several runs of the tests:

    python -m devtools.services run -- pytest …

runs `pytest …` with the addresses in JOBS_TEST_RABBITMQ_URL and TEST_POSTGRESQL_URL,
and ends with its exit code. A service that cannot be had is an error where CI is set;
elsewhere it is named, and the tests that need it skip themselves.
"""

import atexit
import contextlib
import datetime
import functools
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pika
import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

STANDARD_RABBITMQ_URL = "amqp://guest:guest@127.0.0.1:5672/"
STANDARD_POSTGRESQL_URL = "postgres://postgres@127.0.0.1:5432/postgres"

# Runs a command in a process group of its own, and kills the group as soon as the pipe
# at its standard input closes. The kernel closes it whichever way our process ends.
GUARD = 'exec 3<&0; (cat <&3 >/dev/null; kill -9 0) & "$@" 3<&- & wait $!'


class Missing(Exception):
    """A service or a program is not here and could not be brought: what to do."""


@functools.cache
def rabbitmq_url() -> str:
    """The URL of a RabbitMQ that answers, or Missing."""
    for url in (
        os.environ.get("JOBS_TEST_RABBITMQ_URL"),
        os.environ.get("RABBITMQ_URL"),
        STANDARD_RABBITMQ_URL,
    ):
        if url and rabbitmq_answers(url):
            return url
    return RabbitMQNode().start().url


@functools.cache
def postgresql_url() -> str:
    """The URL of a PostgreSQL whose role may create databases, or Missing."""
    for url in (
        os.environ.get("TEST_POSTGRESQL_URL"),
        os.environ.get("DATABASE_URL"),
        STANDARD_POSTGRESQL_URL,
    ):
        if url and url.startswith("postgres") and postgresql_answers(url):
            return url
    return PostgreSQLCluster().start().url


def rabbitmq_answers(
    url: str, context: ssl.SSLContext | None = None, seconds: float = 5
) -> bool:
    """Whether a broker at this URL lets us in: a whole AMQP handshake."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = seconds
    if context:
        parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    try:
        # pika logs every refused connection as an error: ask more quietly first.
        socket.create_connection((parameters.host, parameters.port), 2).close()
        pika.BlockingConnection(parameters).close()
    except (AMQPError, AMQPConnectorException, OSError):
        return False
    return True


def postgresql_answers(url: str) -> bool:
    """Whether a server at this URL lets us in, in a role that may create databases."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            [allowed] = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles"
                " WHERE rolname = current_user"
            ).fetchone() or [False]
    except psycopg.OperationalError:
        return False
    return bool(allowed)


class PrivateServer:
    """A server of our own: its directory, its processes, and their certain end."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="jobsite-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start it and wait until it lets a client in."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL all its processes: what a power cut is to it."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._process = None

    def close(self) -> None:
        """End it for good and remove its directory."""
        if os.getpid() != self._owner:  # a forked child that exits owns nothing here
            return
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def _launch(
        self, command: Sequence[str], environ: Mapping[str, str], user: str | None
    ) -> None:
        if self._process:
            raise RuntimeError(f"{command[0]} is already started")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", GUARD, "guard", *command],
                cwd=self.directory,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
            )

    def _wait(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        assert self._process
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{type(self).__name__} did not start:\n{tail}")
            time.sleep(0.1)

    def _terminate(self, pid: int, number: int, seconds: float = 30) -> None:
        """Ask process *pid* to end, wait for that, and clear away what is left."""
        assert self._process
        os.kill(pid, number)
        try:
            self._process.wait(seconds)
        finally:
            self.kill()

    @property
    def _log(self) -> Path:
        return self.directory / "output.log"


class RabbitMQNode(PrivateServer):
    """A broker node of our own: its data survives stop, kill and start.

    `url` is there from the first moment and stays the same. With `tls=True` it also
    listens at `tls_url`, with a certificate for localhost and 127.0.0.1 that the
    authority in `ca_file` signed.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        name: str = "jobsite",
        epmd: int | None = None,
        cookie: str = "",
        configuration: Sequence[str] = (),
        erlang: str = "",
    ) -> None:
        self._programs = rabbitmq_programs()
        super().__init__()
        self._port, self._tls_port, distribution, own_epmd = free_ports(4)
        self.name = f"{name}@localhost"
        lines = [f"listeners.tcp.1 = 127.0.0.1:{self._port}", *configuration]
        if tls:
            make_certificates(self.directory)
            lines += [
                f"listeners.ssl.1 = 127.0.0.1:{self._tls_port}",
                f"ssl_options.cacertfile = {self.ca_file}",
                f"ssl_options.certfile = {self.directory / 'server.pem'}",
                f"ssl_options.keyfile = {self.directory / 'server.key'}",
            ]
        file = self.directory / "rabbitmq.conf"
        file.write_text("\n".join(lines) + "\n")
        plugins = self.directory / "enabled_plugins"
        plugins.write_text("[].\n")
        cookie_file = self.directory / ".erlang.cookie"
        cookie_file.write_text(cookie or secrets.token_hex(16))
        cookie_file.chmod(0o400)
        # Nothing of the machine's own broker may be read or written: neither its
        # configuration (hence the files that do not exist) nor its epmd.
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RABBITMQ_", "ERL_"))
        }
        self._environ = inherited | {
            "HOME": str(self.directory),
            "ERL_CRASH_DUMP": str(self.directory / "erl_crash.dump"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd or own_epmd),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(file),
            "RABBITMQ_CONFIG_FILES": str(self.directory / "conf.d"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            # One scheduler that sleeps when idle: a node must not slow the tests down.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 1:1 +sbwt none {erlang}",
            "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    @property
    def port(self) -> int:
        return self._port

    @property
    def tls_url(self) -> str:
        return f"amqps://guest:guest@localhost:{self._tls_port}/"

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> Self:
        self.boot()
        self.wait()
        return self

    def boot(self) -> None:
        """Start it without waiting: a node may wait for others of its cluster."""
        server = self._programs / "rabbitmq-server"
        # An epmd of the node's own, in its process group: else the node would leave
        # one behind as a daemon. Where one listens already, this one ends at once.
        command = ["sh", "-c", 'epmd & exec "$0"', str(server)]
        self._launch(command, self._environ, user=None)

    def wait(self) -> None:
        self._wait(lambda: rabbitmq_answers(self.url), 120)

    def stop(self) -> None:
        """Shut down gracefully, as an operator would."""
        self._terminate(self._pid, signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay open, nothing answers."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints for this node."""
        done = subprocess.run(
            [self._programs / "rabbitmqctl", "--quiet", *arguments],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def _pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the node is not running")
        return int((self.directory / "pid").read_text())


class Epmd(PrivateServer):
    """Erlang's port mapper: through it the nodes of a cluster find each other."""

    def __init__(self) -> None:
        super().__init__()
        [self.port] = free_ports(1)

    def start(self) -> Self:
        self._launch(
            ["epmd", "-address", "127.0.0.1", "-port", str(self.port)], os.environ, None
        )
        self._wait(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 2).close()
        except OSError:
            return False
        return True


class RabbitMQCluster:
    """Three broker nodes on this host, which may be killed and frozen one by one.

    Nodes that do not hear from each other for `tick_seconds` count as lost. A node that
    has lost the majority pauses itself until it has found it again.
    """

    SIZE = 3

    def __init__(self, *, tick_seconds: int = 4) -> None:
        self._epmd = Epmd()
        cookie = secrets.token_hex(16)
        self.nodes = [
            RabbitMQNode(
                name=f"jobsite{number}",
                epmd=self._epmd.port,
                cookie=cookie,
                configuration=[
                    "cluster_partition_handling = pause_minority",
                    "cluster_formation.peer_discovery_backend = classic_config",
                    # The others join the first; it forms the cluster.
                    "cluster_formation.classic_config.nodes.1 = jobsite1@localhost",
                ],
                erlang=f"-kernel net_ticktime {tick_seconds}",
            )
            for number in range(1, self.SIZE + 1)
        ]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """All of its nodes, as RABBITMQ_URL takes them."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> Self:
        self._epmd.start()
        self.nodes[0].start()
        self.heal()
        return self

    def heal(self) -> None:
        """Have all nodes run and see each other, as an operator would see to it.

        Nodes that lost each other and were not in the minority stay apart until one of
        them is started anew.
        """
        ended = [node for node in self.nodes if not node.is_running]
        for node in ended:
            node.boot()
        for node in ended:
            node.wait()
        patience = time.monotonic() + 5
        deadline = time.monotonic() + 120
        while lonely := [n for n in self.nodes if len(self.seen_by(n)) < self.SIZE]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"these nodes do not find the others: {lonely}")
            if time.monotonic() > patience:
                node = min(lonely, key=lambda each: len(self.seen_by(each)))
                node.kill()
                node.start()
                patience = time.monotonic() + 5
            time.sleep(0.5)
        for node in self.nodes:
            node.wait()

    def seen_by(self, node: RabbitMQNode) -> list[str]:
        """The nodes that this one believes to be running; none while it does not run."""
        try:
            status = json.loads(node.ctl("cluster_status", "--formatter=json"))
        except RuntimeError:
            return []
        return [str(name) for name in status["running_nodes"]]

    def part(self, node: RabbitMQNode) -> None:
        """Have one node and the others lose sight of each other, for a moment."""
        others = [each.name for each in self.nodes if each is not node]
        calls = ", ".join(f"erlang:disconnect_node('{name}')" for name in others)
        node.ctl("eval", f"{calls}.")

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self._epmd.close()


class PostgreSQLCluster(PrivateServer):
    """A PostgreSQL of our own, for tests: it does not wait for the disk.

    `settings` are parameters of the server.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._programs = postgresql_programs()
        super().__init__()
        [self._port] = free_ports(1)
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.directory, self._user)

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> Self:
        data = self.directory / "data"
        if not data.exists():
            subprocess.run(
                [
                    *(self._programs / "initdb", "--pgdata", data, "--no-sync"),
                    *("--username=postgres", "--auth=trust", "--encoding=UTF8"),
                ],
                cwd=self.directory,
                user=self._user,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        command = [
            *(str(self._programs / "postgres"), "-D", str(data), "-p", str(self._port)),
            *("-h", "127.0.0.1", "-k", "", "-F"),
            *(f"--{name}={value}" for name, value in self._settings.items()),
        ]
        self._launch(command, os.environ, user=self._user)
        self._wait(lambda: postgresql_answers(self.url))
        return self

    @property
    def port(self) -> int:
        return self._port

    def stop(self) -> None:
        """Shut down gracefully; sessions that are still open are ended."""
        self._terminate(self._pid, signal.SIGINT)

    def crash(self) -> None:
        """End at once and write nothing more: the next start has to recover."""
        self._terminate(self._pid, signal.SIGQUIT)

    @property
    def _pid(self) -> int:
        return int((self.directory / "data/postmaster.pid").read_text().split()[0])


def rabbitmq_programs() -> Path:
    """The directory of rabbitmq-server and rabbitmqctl."""
    # Not the wrappers on Debian's PATH: as root those become another user, who may not
    # read our directory.
    return _directory_of("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin")


def postgresql_programs() -> Path:
    """The directory of initdb and postgres."""
    return _directory_of("initdb", "postgresql", "/usr/lib/postgresql/*/bin")


def chromium() -> str:
    """The path of a Chromium, or Missing."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return program("chromium", package="chromium")


def program(name: str, *, package: str) -> str:
    """The path of an installed program, or Missing."""
    return str(_directory_of(name, package, "/usr/bin") / name)


def _directory_of(name: str, package: str, pattern: str) -> Path:
    for attempt in ("look", "install"):
        if attempt == "install":
            install(package)
        found = sorted(Path("/").glob(f"{pattern.lstrip('/')}/{name}"))
        if found:
            return found[-1].parent
        if path := shutil.which(name):
            return Path(path).parent
    raise Missing(f"{package} was installed, and yet there is no {name}")


@functools.cache
def install(package: str) -> None:
    """Install a package of Debian's, where that is possible and allowed; else Missing."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Missing(
            f"{package} is not here: install it, or start it on its usual port"
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


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def make_certificates(directory: Path, now: datetime.datetime | None = None) -> None:
    """Write ca.pem, and server.pem with server.key for localhost, valid for a day."""
    now = now or datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("Jobsite test authority", authority_key, None, now)
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = _certificate("localhost", server_key, (authority, authority_key), now)
    for name, certificate in (("ca", authority), ("server", server)):
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (directory / f"{name}.pem").write_bytes(pem)
    (directory / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    now: datetime.datetime,
) -> x509.Certificate:
    """A certificate for *key*; with no issuer it is an authority's, signed by itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing_key = issuer[1] if issuer else key
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName(names), False)
        # Python 3.13 checks certificates strictly, and asks for these.
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                signing_key.public_key()
            ),
            False,
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=not issuer,
                crl_sign=not issuer,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
        .sign(signing_key, hashes.SHA256())
    )


def run(command: Sequence[str]) -> int:
    """Run *command* with every service that the tests need; its exit code."""
    environ = dict(os.environ)
    problems = []
    for variable, bring in (
        ("JOBS_TEST_RABBITMQ_URL", rabbitmq_url),
        ("TEST_POSTGRESQL_URL", postgresql_url),
    ):
        try:
            environ[variable] = bring()
        except Missing as error:
            environ.pop(variable, None)
            problems.append(error)
    try:
        chromium()
    except Missing as error:
        problems.append(error)
    for problem in problems:
        sys.stderr.write(f"devtools.services: {problem}\n")
    if problems and os.environ.get("CI"):
        return 1
    return subprocess.run(command, env=environ).returncode


if __name__ == "__main__":
    if sys.argv[1:3] != ["run", "--"] or not sys.argv[3:]:
        sys.exit("usage: python -m devtools.services run -- COMMAND …")
    sys.exit(run(sys.argv[3:]))
