"""What the benchmarks run: next to nothing, so that what is measured is the way of a job."""

from django.contrib.auth.models import Group

from jobs.compat import task


@task
def nothing(number: int) -> int:
    return number


@task
def one_query(number: int) -> int:
    return Group.objects.filter(pk=number).count()


@task(atomic=True)
def one_insert(number: int) -> int:
    return Group.objects.create(name=f"benchmark {number}").pk
