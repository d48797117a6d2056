"""How the pages and the admin write a status, a moment and a length of time."""

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jobs.models import Job
from jobs.statuses import Phase, Status

register = template.Library()


@register.simple_tag
def badge(phase: Phase) -> SafeString:
    """A status: an icon, a word, and a colour for those who see it."""
    return marked(phase.value, phase.label)


@register.simple_tag
def marked(look: str, words: Any) -> SafeString:
    """Words with the look of a phase: its icon in icons.svg, its colour in jobs.css."""
    return format_html(
        '<span class="jobs-badge jobs-{}"><svg class="jobs-icon" aria-hidden="true">'
        '<use href="{}#{}"></use></svg>{}</span>',
        look,
        static("jobs/icons.svg"),
        look,
        words,
    )


@register.simple_tag
def moment(when: datetime) -> SafeString:
    """A date and time in the current zone, to the second."""
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        when.isoformat(),
        _("%(moment)s UTC") % {"moment": f"{when:%Y-%m-%d %H:%M:%S}"},
        f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S}",
    )


@register.simple_tag
def elapsed(since: datetime) -> SafeString:
    """How long it has been; the script keeps it going."""
    return _ticking("since", since, timezone.now() - since)


@register.simple_tag
def remaining(until: datetime) -> SafeString:
    """How long it is until then; the script keeps it going."""
    return _ticking("until", until, until - timezone.now())


@register.filter
def clock(length: timedelta) -> str:
    """01:05, 2:03:04 or 3 d 02:03:04."""
    seconds = max(0, int(length.total_seconds()))
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if days:
        return f"{days} d {hours:02}:{minutes:02}:{seconds:02}"
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes:02}:{seconds:02}"


@register.filter
def length(value: timedelta) -> str:
    """How long something took: with a fraction while that matters."""
    seconds = max(0.0, value.total_seconds())
    if seconds >= 60:
        return clock(value)
    return _("%(seconds)s s") % {
        "seconds": f"{seconds:.3f}" if seconds < 0.1 else f"{seconds:.1f}"
    }


@register.simple_tag
def duration(job: Job) -> SafeString | str:
    """How long the latest attempt took, or has been taking."""
    if job.status == Status.RUNNING and job.started_at is not None:
        return elapsed(job.started_at)
    return "" if job.duration is None else length(job.duration)


@register.filter
def short_name(task: str) -> str:
    """The last part of a task's dotted path."""
    return task.rpartition(".")[2]


def _ticking(kind: str, when: datetime, length: timedelta) -> SafeString:
    return format_html(
        '<time datetime="{}" data-{}>{}</time>', when.isoformat(), kind, clock(length)
    )
