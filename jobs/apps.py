"""The app, and what is connected once Django is ready."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class JobsConfig(AppConfig):
    name = "jobs"
    label = "jobs"
    verbose_name = _("Jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from jobs import checks, relay, signals
        from jobs.transports import notifications

        checks.register()
        signals.runnable.connect(relay.nudge, dispatch_uid="jobs.relay")
        signals.runnable.connect(
            notifications.announce, dispatch_uid="jobs.notifications"
        )
