"""The functions that all contenders run: next to nothing, to measure the way of a job."""

import django
from django.apps import apps

if not apps.models_ready:  # in a worker that is no command of Django's
    django.setup()

from django.contrib.auth.models import Group

from benchmarks import evidence


def nothing(number: int) -> int:
    evidence.leave(number)
    return number


def one_query(number: int) -> int:
    evidence.leave(number)
    return Group.objects.filter(pk=number).count()


def one_insert(number: int) -> int:
    evidence.leave(number)
    return Group.objects.create(name=f"benchmark {number}").pk
