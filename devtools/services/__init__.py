"""Real services for the tests: RabbitMQ, PostgreSQL, and the programs that tests drive.

A service is looked for in this order: what answers at the address in the environment;
what answers on the standard local port; a private one, started from the installed
program; the same after installing it (as root, with apt-get, and only where CI or
INSTALL=1 is set). If all fail, `Missing` says in one sentence what to do. Whatever is
started here ends with this process, however this process ends.

As a command (see `__main__`) it does that once for several runs of the tests.
"""

from devtools.services.certificates import make_certificates
from devtools.services.postgresql import (
    PostgreSQLCluster,
    postgresql_answers,
    postgresql_programs,
    postgresql_url,
)
from devtools.services.programs import Missing, chromium, install, program
from devtools.services.rabbitmq import (
    RabbitMQCluster,
    RabbitMQNode,
    rabbitmq_answers,
    rabbitmq_url,
)
from devtools.services.servers import PrivateServer, free_ports

__all__ = [
    "Missing",
    "PostgreSQLCluster",
    "PrivateServer",
    "RabbitMQCluster",
    "RabbitMQNode",
    "chromium",
    "free_ports",
    "install",
    "make_certificates",
    "postgresql_answers",
    "postgresql_programs",
    "postgresql_url",
    "program",
    "rabbitmq_answers",
    "rabbitmq_url",
]
