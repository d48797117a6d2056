"""Settings of the site. Everything that differs between two sites is in the environment."""

from pathlib import Path
from typing import Any

import django
import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
env.read_env(str(BASE_DIR / ".env"))


def local_secret_key() -> str:
    """This machine's own key, generated once: a fresh clone starts without any settings."""
    path = BASE_DIR / ".secret_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(get_random_secret_key())
    return path.read_text()


DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or local_secret_key()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "jobs",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "jobsite.middleware.DatabaseAwayMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware"
    if django.VERSION >= (6, 0)
    else "jobsite.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

# Nothing from other sites, nothing inline: the admin and our pages need no more.
SECURE_CSP = {
    "default-src": ["'self'"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
    "form-action": ["'self'"],
}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "jobsite.urls"
WSGI_APPLICATION = "jobsite.wsgi.application"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "jobs:list"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}"),
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Several processes use the file. WAL: readers do not block the writer. IMMEDIATE, with a
    # timeout: writers take turns. FULL: a commit is on disk when it returns.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 600
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Without QUEUES, a task may name any queue.
TASKS = {"default": {"BACKEND": "jobs.backend.JobsBackend", "QUEUES": []}}

JOBS = {
    "RABBITMQ_URL": env.str("RABBITMQ_URL", default=""),
    "PREFIX": env.str("JOBS_PREFIX", default="jobs"),
    "QUEUE_TYPE": env.str("JOBS_QUEUE_TYPE", default="classic"),
    "LEASE_SECONDS": env.int("JOBS_LEASE_SECONDS", default=30),
    "PUBLISH_ON_SAVE": env.bool("JOBS_PUBLISH_ON_SAVE", default=True),
    "KEEP_SUCCEEDED_DAYS": env.int("JOBS_KEEP_SUCCEEDED_DAYS", default=7),
    "KEEP_FAILED_DAYS": env.int("JOBS_KEEP_FAILED_DAYS", default=90),
    "LOG_JOBS": env.bool("JOBS_LOG_JOBS", default=True),
}

LANGUAGE_CODE = "en-us"
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "jobsite.storage.StaticFilesStorage"
    },
}
# A clone where collectstatic never ran still has its styles.
WHITENOISE_USE_FINDERS = True

LOG_FORMATTERS: dict[str, dict[str, str]] = {
    "line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"},
    "json": {"()": "jobsite.logs.JSONFormatter"},
}
LOG_FORMAT = env.str("LOG_FORMAT", default="line")
if LOG_FORMAT not in LOG_FORMATTERS:
    raise ImproperlyConfigured(
        f"LOG_FORMAT is {LOG_FORMAT!r}, and must be {' or '.join(LOG_FORMATTERS)}"
    )

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": LOG_FORMATTERS,
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT},
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "jobs": {"level": env.str("LOG_LEVEL", default="INFO")},
        # Without handlers of its own: errors are logged in production, too.
        "django": {"level": "INFO"},
        # Workers say the same, and more, in `jobs.events`.
        "django.tasks": {"level": "CRITICAL"},
        "django_tasks": {"level": "CRITICAL"},
    },
}
