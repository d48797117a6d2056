import os

from django.apps import AppConfig

from jobs import crashpoints
from tests.sample import heard
from tests.sample.crash import Crash


class SampleConfig(AppConfig):
    name = "tests.sample"

    def ready(self) -> None:
        """Do to this process what the test that started it asked for."""
        if path := os.environ.get("JOBS_TEST_HEARD"):
            heard.listen(path, then_raise="JOBS_TEST_LISTENERS_RAISE" in os.environ)
        if armed := os.environ.get("JOBS_CRASHPOINT"):
            crashpoints.install(Crash.parse(armed))
