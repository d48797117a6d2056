"""`formatting` for templates."""

from django import template

from jobs import formatting

register = template.Library()

register.filter(formatting.length)
register.filter(formatting.short_name)
register.simple_tag(formatting.badge)
register.simple_tag(formatting.duration)
register.simple_tag(formatting.elapsed)
register.simple_tag(formatting.icon)
register.simple_tag(formatting.moment)
register.simple_tag(formatting.phase)
register.simple_tag(formatting.remaining)
