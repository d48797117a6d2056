import os

from django.apps import AppConfig

from jobs import crashpoints
from tests.sample.crash import Crash


class SampleConfig(AppConfig):
    name = "tests.sample"

    def ready(self) -> None:
        """Arm this process if the test that started it asked for that."""
        if armed := os.environ.get("JOBS_CRASHPOINT"):
            crashpoints.install(Crash.parse(armed))
