"""The tests' settings, plus the accounts that the jobs move money between."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "devtools.chaos"]
