"""RabbitMQ for the tests: one that answers, a private node, or a private cluster."""

import functools
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from devtools.services.certificates import make_certificates
from devtools.services.programs import ON_ITS_PORT, directory_of
from devtools.services.servers import PrivateServer, free_ports

STANDARD_URL = "amqp://guest:guest@127.0.0.1:5672/"


@functools.cache
def rabbitmq_url() -> str:
    """The URL of a RabbitMQ that answers, or Missing."""
    for url in (
        os.environ.get("JOBS_TEST_RABBITMQ_URL"),
        os.environ.get("RABBITMQ_URL"),
        STANDARD_URL,
    ):
        if url and rabbitmq_answers(url):
            return url
    return RabbitMQNode().start().url


def rabbitmq_answers(
    url: str, context: ssl.SSLContext | None = None, seconds: float = 5
) -> bool:
    """Whether a broker at this URL accepts us, after a whole AMQP handshake."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = seconds
    if context:
        parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    try:
        # pika logs every refused connection as an error, so try a plain socket first.
        socket.create_connection((parameters.host, parameters.port), 2).close()
        pika.BlockingConnection(parameters).close()
    except (AMQPError, AMQPConnectorException, OSError):
        return False
    except ValueError:  # what pika raises if the connection is reset at once
        return False
    return True


def rabbitmq_programs() -> Path:
    """The directory of rabbitmq-server and rabbitmqctl."""
    # Not the wrappers on Debian's PATH: as root they switch to a user who cannot read our
    # directory.
    return directory_of(
        "rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin", ON_ITS_PORT
    )


class RabbitMQNode(PrivateServer):
    """A private broker node. Its data survives stop, kill and start.

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
        # Use nothing of the machine's own broker: neither its configuration (hence the files
        # that do not exist) nor its epmd.
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
            # One scheduler that sleeps when idle, so that a node does not slow down the tests.
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
        # Start an epmd in the node's process group. Otherwise the node would leave one behind
        # as a daemon. If one listens already, this one exits at once.
        command = ["sh", "-c", 'epmd & exec "$0"', str(server)]
        self._launch(command, self._environ, user=None)

    def wait(self) -> None:
        # It listens a moment before rabbitmqctl takes it for running.
        self._wait(lambda: rabbitmq_answers(self.url) and self._is_booted(), 120)

    def _is_booted(self) -> bool:
        return self.call("rabbit", "is_running").strip() == "true"

    def stop(self) -> None:
        """Shut down gracefully, as an operator would."""
        self._terminate(self._pid, signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Freeze it: connections stay open, and nothing answers."""
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

    def call(self, module: str, function: str) -> str:
        """What a function of the node returns, without arguments; "" if it does not answer.

        This costs a hundredth of what `rabbitmqctl` costs, which starts an Erlang of its own.
        """
        cookie = (self.directory / ".erlang.cookie").read_text()
        where = ["-c", cookie, "-n", self.name, "-timeout", "10"]
        done = subprocess.run(
            ["erl_call", *where, "-a", f"{module} {function} []"],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        failed = done.returncode or "badrpc" in done.stdout
        return "" if failed else done.stdout

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
    """Three broker nodes on this host, which tests kill and freeze one by one.

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
        """Make all nodes run and see each other, as an operator would.

        Nodes that lost each other and were not in the minority stay apart until one of
        them is restarted.
        """
        ended = [node for node in self.nodes if not node.is_running]
        for node in ended:
            node.boot()
        for node in ended:
            node.wait()
        restart_at = time.monotonic() + 5
        deadline = time.monotonic() + 120
        while lonely := [n for n in self.nodes if len(self.seen_by(n)) < self.SIZE]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"these nodes do not find the others: {lonely}")
            if time.monotonic() > restart_at:
                node = min(lonely, key=lambda node: len(self.seen_by(node)))
                node.kill()
                node.start()
                restart_at = time.monotonic() + 5
            time.sleep(0.5)
        for node in self.nodes:
            node.wait()

    def seen_by(self, node: RabbitMQNode) -> list[str]:
        """The nodes that this one believes to be running. Empty if it does not run itself."""
        # The name of the function depends on the version.
        listed = node.call("rabbit_nodes", "list_running") or node.call(
            "rabbit_nodes", "all_running"
        )
        return re.findall(r"[\w-]+@[\w.-]+", listed)

    def part(self, node: RabbitMQNode) -> None:
        """Make one node and the others lose sight of each other for a moment."""
        others = [other.name for other in self.nodes if other is not node]
        calls = ", ".join(f"erlang:disconnect_node('{name}')" for name in others)
        node.ctl("eval", f"{calls}.")

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self._epmd.close()
