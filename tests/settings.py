"""The site's settings, plus an app whose tasks misbehave on purpose."""

import os
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "only-for-tests")

from jobsite.settings import *  # noqa: F403
from jobsite.settings import DATABASES, INSTALLED_APPS, JOBS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.sample"]

# A file, not memory: workers are other processes and open the same database.
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    database = Path(DATABASES["default"]["NAME"])
    DATABASES["default"]["TEST"] = {
        "NAME": str(database.with_name(f"test_{database.name}"))
    }

# Never the broker in the machine's environment: a test says which broker it means, here and
# for the processes that it starts.
JOBS = JOBS | {"RABBITMQ_URL": os.environ.get("JOBS_TEST_TRANSPORT_URL", "")}

# `collectstatic` has not run: look for a static file when it is requested.
WHITENOISE_AUTOREFRESH = True

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
