"""The tests' settings, plus an app with the accounts between which jobs move money."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "devtools.chaos"]
