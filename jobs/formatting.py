"""How people read a status, a time, a duration: on the pages, in the admin, in commands."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs.models import Job
from jobs.statuses import Phase, Status

#: Date and time, to the second.
TIMESTAMP = "%Y-%m-%d %H:%M:%S"


# Text


def short_name(task: str) -> str:
    """The last part of a task's dotted path."""
    return task.rpartition(".")[2]


def utc(when: datetime) -> str:
    """2026-07-01 12:00:00 UTC."""
    return _("%(moment)s UTC") % {"moment": f"{when.astimezone(UTC):{TIMESTAMP}}"}


def clock(span: timedelta) -> str:
    """A duration that is still growing: 01:05, 2:03:04 or 3 d 02:03:04.

    live.js writes it in the same way.
    """
    seconds = max(0, int(span.total_seconds()))
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if days:
        return f"{days} d {hours:02}:{minutes:02}:{seconds:02}"
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes:02}:{seconds:02}"


def length(span: timedelta) -> str:
    """A duration that is over: with a fraction of a second while that matters."""
    seconds = max(0.0, span.total_seconds())
    if seconds >= 60:
        return clock(span)
    return _("%(seconds)s s") % {
        "seconds": f"{seconds:.3f}" if seconds < 0.1 else f"{seconds:.1f}"
    }


def age(span: timedelta) -> str:
    """How old something is, in days."""
    return ngettext("%(days)d day", "%(days)d days", span.days) % {"days": span.days}


# HTML


def icon(look: str) -> SafeString:
    """A picture from icons.svg."""
    return format_html(
        '<svg class="jobs-icon" aria-hidden="true"><use href="{}#{}"></use></svg>',
        static("jobs/icons.svg"),
        look,
    )


def badge(look: str, label: Any) -> SafeString:
    """A label with the icon and the colour of a phase."""
    return format_html(
        '<span class="jobs-badge jobs-{}">{}{}</span>', look, icon(look), label
    )


def phase(phase: Phase) -> SafeString:
    """A phase: an icon, a word, and a colour for those who see it."""
    return badge(phase.value, phase.label)


def moment(when: datetime) -> SafeString:
    """A date and time in the current time zone, and in UTC on hover."""
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        when.isoformat(),
        utc(when),
        f"{timezone.localtime(when):{TIMESTAMP}}",
    )


def elapsed(since: datetime) -> SafeString:
    """How long it has been. live.js keeps it counting."""
    return _ticking("since", since, timezone.now() - since)


def remaining(until: datetime) -> SafeString:
    """How long it will be. live.js keeps it counting."""
    return _ticking("until", until, until - timezone.now())


def _ticking(kind: str, when: datetime, span: timedelta) -> SafeString:
    return format_html(
        '<time datetime="{}" data-{}>{}</time>', when.isoformat(), kind, clock(span)
    )


def duration(job: Job) -> SafeString | str:
    """How long the latest attempt took, or has been taking."""
    if job.status == Status.RUNNING and job.started_at is not None:
        return elapsed(job.started_at)
    return "" if job.duration is None else length(job.duration)
