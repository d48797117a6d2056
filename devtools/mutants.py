"""Broken builds: each must be caught by the tests that exist to catch it.

    python -m devtools.mutants [NAME …]

Each mutant is a plausible mistake that would break a promise. This program makes one after
the other in a copy of the working tree, and runs the few tests there that must find it. A
mutant that survives is a gap in the tests, and so is one that only makes them hang.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from devtools import services

ROOT = Path(__file__).resolve().parent.parent

#: How long one run of tests may take, in seconds.
TIMEOUT = 600.0


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mistake: `broken` replaces `whole`, which occurs exactly once in `file`."""

    name: str
    file: str
    whole: str
    broken: str
    #: At least one of them must fail.
    tests: tuple[str, ...]
    #: Where they run: on PostgreSQL only if SQLite, with its one writer, cannot show it.
    database: str = "sqlite"


MUTANTS = (
    # Jobs that are assigned together do not suffer together.
    Mutant(
        name="suspects-together",
        file="jobs/worker/dispatcher.py",
        whole="            if claimed.budget.losses and spare <= 0:\n",
        broken="            if False:\n",
        tests=(
            "tests/worker/test_dispatcher.py::TestWorkers::"
            "test_job_that_kills_workers_takes_no_other_job_along[database]",
        ),
    ),
    Mutant(
        name="a-batch-dies-together",
        file="jobs/worker/running.py",
        whole="    if running.number > exited.begun:\n"
        "        return outcomes.released(claim, NOT_BEGUN)\n"
        "    if running.number not in exited.running:\n",
        broken="    if False:\n",
        tests=(
            "tests/worker/test_dispatcher.py::TestWorkers::"
            "test_killed_child_is_blamed_on_the_job_that_it_ran[database]",
        ),
    ),
    Mutant(
        name="nothing-is-taken-back",
        file="jobs/worker/fleet.py",
        whole="if seconds > HELD_UP_SECONDS:",
        broken="if seconds > 3600:",
        tests=(
            "tests/worker/test_dispatcher.py::TestWorkers::"
            "test_jobs_behind_a_long_one_run_elsewhere[database]",
        ),
    ),
    # A status is written once.
    Mutant(
        name="finish-without-attempt",
        file="jobs/lifecycle.py",
        whole="    AND jobs_job.attempt = batch.attempt\n",
        broken="",
        tests=("tests/test_lifecycle.py::test_stale_attempt_changes_nothing",),
    ),
    Mutant(
        name="finish-without-worker",
        file="jobs/lifecycle.py",
        whole="    AND (jobs_job.worker_id = batch.worker) IS TRUE\n",
        broken="",
        tests=(
            "tests/test_lifecycle.py::"
            "test_attempts_of_the_same_number_are_distinguished_by_their_worker",
        ),
    ),
    Mutant(
        # Each of the two lines that it leaves out says that the job still runs.
        name="finish-without-status",
        file="jobs/lifecycle.py",
        whole="""
    AND jobs_job.status || '' = 'running'
    AND jobs_job.attempt = batch.attempt
    AND (jobs_job.worker_id = batch.worker) IS TRUE
""",
        broken="\n    AND jobs_job.attempt = batch.attempt\n",
        tests=("tests/test_lifecycle.py::test_attempt_ends_once",),
    ),
    Mutant(
        name="claim-without-status",
        file="jobs/lifecycle.py",
        whole="""
                       AND status || '' = 'queued' AND run_after <= {now}
                       AND queue NOT IN (SELECT name FROM jobs_queue
                                          WHERE paused_at IS NOT NULL)
                     {skip_locked}){end_array}
       AND status || '' = 'queued'
""",
        broken="""
                       AND run_after <= {now}
                       AND queue NOT IN (SELECT name FROM jobs_queue
                                          WHERE paused_at IS NOT NULL)
                     {skip_locked}){end_array}
""",
        tests=("tests/test_lifecycle.py::test_running_job_cannot_be_claimed_again",),
    ),
    Mutant(
        name="cancel-does-not-stick",
        file="jobs/lifecycle.py",
        whole="CASE WHEN cancel_requested_at IS NULL OR batch.status = 'succeeded'",
        broken="CASE WHEN TRUE",
        tests=("tests/worker/test_execution.py::TestCancellationSticks",),
    ),
    Mutant(
        name="fence-ignored",
        file="jobs/worker/execution.py",
        whole="if not lifecycle.complete(self.claim, result):",
        broken="if lifecycle.complete(self.claim, result) is None:",
        tests=(
            "tests/test_options.py::TestAtomic::"
            "test_its_writes_are_rolled_back_if_another_attempt_owns_the_job[database]",
        ),
        database="postgresql",
    ),
    Mutant(
        name="fence-after-the-commit",
        file="jobs/worker/executor.py",
        whole="        execution.complete(_call(task, execution, args, kwargs))\n",
        broken="        result = _call(task, execution, args, kwargs)\n"
        "    execution.complete(result)\n",
        tests=(
            "tests/test_options.py::TestAtomic::"
            "test_its_writes_are_rolled_back_if_another_attempt_owns_the_job[database]",
        ),
        database="postgresql",
    ),
    # A hint is acknowledged after the commit, and published after the commit.
    Mutant(
        name="acknowledge-on-receipt",
        file="jobs/worker/claimer.py",
        whole="                fetched = self.transport.fetch(limit)\n",
        broken="                fetched = self.transport.fetch(limit)\n"
        "                self.transport.acknowledge(fetched)\n",
        tests=(
            "tests/faults/test_worker.py::"
            "test_w1_a_hint_is_acknowledged_after_the_commit_and_never_before",
        ),
    ),
    Mutant(
        name="acknowledge-before-the-finish",
        file="jobs/worker/supervisor.py",
        whole="        self._recorder.add(news.ended)\n",
        broken="        self._recorder.add(news.ended)\n"
        "        self._claimer.settle([o.claim.job_id for o in news.ended])\n",
        tests=(
            "tests/faults/test_worker.py::"
            "test_w1_a_hint_is_acknowledged_after_the_commit_and_never_before",
        ),
    ),
    Mutant(
        name="acknowledge-what-was-forgotten",
        file="jobs/worker/supervisor.py",
        whole="                self._claimer.reconsider()\n",
        broken="                self._claimer.settle(self._claimer.fenced)\n"
        "                self._claimer.fenced = []\n",
        tests=(
            "tests/faults/test_database.py::TestAway::"
            "test_d16_a_job_whose_claim_a_crash_forgot_runs_again",
        ),
        database="postgresql",
    ),
    Mutant(
        name="follow-each-turn-of-the-mean",
        file="jobs/transports/rabbitmq/consumer.py",
        whole="LOWER_SECONDS = 1.0\n",
        broken="LOWER_SECONDS = 0.0\n",
        tests=("tests/transports/rabbitmq/test_consumer.py::TestPrefetch",),
    ),
    Mutant(
        name="prepare-behind-a-pooler",
        file="jobs/sql/prepared.py",
        whole="    return bool(pid == session.info.backend_pid)\n",
        broken="    return True\n",
        tests=("tests/sql/test_prepared.py",),
        database="postgresql",
    ),
    Mutant(
        name="keep-prepared-statements-for-ever",
        file="jobs/sql/prepared.py",
        whole="        if now - known.discarded_at > KEEP_SECONDS:\n",
        broken="        if False:\n",
        tests=("tests/sql/test_prepared.py",),
        database="postgresql",
    ),
    Mutant(
        name="never-look-after-connections",
        file="jobs/worker/executor.py",
        whole="        connections.check()\n",
        broken="",
        tests=(
            "tests/worker/test_connections.py::"
            "test_d6_connection_broken_between_jobs_does_not_interrupt_the_next",
        ),
        database="postgresql",
    ),
    Mutant(
        name="publish-before-the-commit",
        file="jobs/signals.py",
        whole="transaction.on_commit(partial(_send, using, newborn), using=using)",
        broken="_send(using, newborn)",
        tests=(
            "tests/test_enqueue.py::test_rolled_back_save_leaves_no_row_and_sends_no_signal[on]",
        ),
    ),
    # Listeners hear of what was committed, and can break nothing.
    Mutant(
        name="events-before-the-commit",
        file="jobs/announcements.py",
        whole="        transaction.on_commit(partial(event.send, batch), using=using)\n",
        broken="        event.send(batch)\n",
        tests=(
            "tests/test_announcements.py::TestEnqueued::"
            "test_a_rollback_is_not_heard_and_a_commit_is_heard_after_it",
        ),
    ),
    Mutant(
        name="a-listener-may-exit",
        file="jobs/events.py",
        whole="            except BaseException:\n",
        broken="            except Exception:\n",
        tests=(
            "tests/worker/test_events.py::"
            "test_listeners_and_receivers_that_exit_change_no_outcome[database]",
        ),
    ),
    Mutant(
        name="a-receiver-may-exit",
        file="jobs/tasksignals.py",
        whole="    except BaseException:\n",
        broken="    except ArithmeticError:\n",
        tests=(
            "tests/worker/test_events.py::"
            "test_listeners_and_receivers_that_exit_change_no_outcome[database]",
        ),
    ),
    # Where the table is the queue, a worker is notified. Polling would hide a loss as slowness.
    Mutant(
        name="no-notification",
        file="jobs/transports/notifications.py",
        whole='            cursor.execute(f"NOTIFY {CHANNEL}")\n',
        broken="            pass\n",
        tests=(
            "tests/transports/test_notifications.py::test_every_way_of_making_jobs_runnable_wakes_a_worker",
        ),
        database="postgresql",
    ),
    Mutant(
        name="what-came-right-after-is-forgotten",
        file="jobs/transports/notifications.py",
        whole="            look_again = notified\n",
        broken="            look_again = False\n",
        tests=(
            "tests/transports/test_notifications.py::"
            "test_job_saved_right_after_a_notification_is_found",
        ),
        database="postgresql",
    ),
    Mutant(
        name="no-end-waits-for-the-disk",
        file="jobs/sql/dialect.py",
        whole='        ask(f"PRAGMA synchronous = {usual}")\n',
        broken="        pass\n",
        tests=(
            "tests/transports/test_transports.py::"
            "test_claim_does_not_wait_for_the_disk_but_finish_does",
        ),
    ),
    # No hint is lost unnoticed. Healing would hide the first two as slowness, so their tests
    # ask the publisher itself.
    Mutant(
        name="not-mandatory",
        file="jobs/transports/rabbitmq/wire.py",
        whole="mandatory=True",
        broken="mandatory=False",
        tests=(
            "tests/transports/rabbitmq/test_publisher.py::TestPublishing::test_deleted_queue_is_declared_again",
        ),
    ),
    Mutant(
        name="confirms-not-waited-for",
        file="jobs/transports/rabbitmq/publisher.py",
        whole="        batch.wait(timeout, on_confirmed)\n",
        broken="        return Receipt(confirmed=list(hints))\n",
        tests=(
            "tests/transports/rabbitmq/test_publisher.py::TestPublishing::test_full_queue_refuses_its_hints",
        ),
    ),
    Mutant(
        name="no-healing",
        file="jobs/relay/thread.py",
        whole="            self._healer.heal_if_due()\n",
        broken="            pass\n",
        tests=(
            "tests/relay/test_healer.py::TestLostHints::"
            "test_b13_hints_of_a_purged_queue_are_published_again",
        ),
    ),
    Mutant(
        name="misses-are-put-back",
        file="jobs/worker/claimer.py",
        whole="queued = self._queued(d.job_id for d in missed)",
        broken="queued = {delivery.job_id: True for delivery in missed}",
        tests=(
            "tests/faults/test_broker.py::"
            "test_b18_a_hint_to_a_job_that_does_not_exist_is_forgotten",
        ),
    ),
    Mutant(
        name="busy-requeues-in-a-hot-loop",
        file="jobs/worker/supervisor.py",
        whole="        elif self._claimer.has_waited_too_long():\n"
        "            transport.pause()\n",
        broken="        else:\n"
        "            transport.pause()\n"
        "            transport.resume()\n",
        tests=(
            "tests/worker/test_claimer.py::"
            "test_busy_worker_gives_back_a_hint_once_and_stays_quiet",
        ),
    ),
    # Which worker owns a job.
    Mutant(
        name="no-rescue",
        file="jobs/worker/housekeeping.py",
        whole="                rescuer.rescue()\n",
        broken="",
        tests=(
            "tests/maintenance/test_rescuer.py::TestWorkers::"
            "test_w3_job_of_a_killed_worker_runs_at_another[database]",
        ),
    ),
    Mutant(
        name="lapsed-lease-is-renewed",
        file="jobs/worker/lease.py",
        whole="row.live().update(",
        broken="row.update(",
        tests=(
            "tests/maintenance/test_rescuer.py::TestWorkers::"
            "test_w27_worker_kills_what_it_runs_before_others_may_start_it[database]",
        ),
    ),
    Mutant(
        name="one-id-for-a-host",
        file="jobs/worker/lease.py",
        whole="        worker.save(force_insert=True)\n",
        broken="        import uuid\n"
        "        worker.id = uuid.uuid5(uuid.NAMESPACE_DNS, worker.host)\n"
        "        worker._state.adding = False\n"
        "        worker.save()\n",
        tests=(
            "tests/maintenance/test_rescuer.py::TestWorkers::"
            "test_w3_job_of_a_killed_worker_runs_at_another[database]",
        ),
    ),
    Mutant(
        name="lease-by-the-workers-clock",
        file="jobs/worker/lease.py",
        whole="                lease_until=Now() + self._length, trouble=trouble,",
        broken="                lease_until=__import__('django.utils.timezone').utils.timezone"
        ".now() + self._length, trouble=trouble,",
        tests=(
            "tests/faults/test_worker.py::test_w26_the_clock_of_a_worker_decides_nothing",
        ),
    ),
    Mutant(
        name="rescue-by-the-workers-clock",
        file="jobs/maintenance/rescuer.py",
        whole="    orphans = Job.objects.using(alias).filter(\n"
        "        status=Status.RUNNING, worker__lease_until__lte=Now()\n",
        broken="    from django.utils import timezone\n"
        "    orphans = Job.objects.using(alias).filter(\n"
        "        status=Status.RUNNING, worker__lease_until__lte=timezone.now()\n",
        tests=(
            "tests/faults/test_worker.py::test_w26_the_clock_of_a_worker_decides_nothing",
        ),
    ),
    Mutant(
        name="no-trust-window",
        file="jobs/worker/supervisor.py",
        whole="        self._fleet.enforce(now, worker)\n",
        broken="        self._fleet.enforce(now, self._lease.worker_id)\n",
        tests=(
            "tests/faults/test_network.py::"
            "test_n2_a_worker_cut_off_from_the_database_stops_its_jobs_in_time",
        ),
        database="postgresql",
    ),
    # What the end of a process means.
    Mutant(
        name="released-before-it-is-dead",
        file="jobs/worker/fleet.py",
        whole="        for child in self._children.values():\n            child.kill()\n",
        broken="        for child in self._children.values():\n"
        "            child.kill()\n"
        "            claims = [running.claim for running in child.running.values()]\n"
        "            self._news.ended += map(outcomes.released, claims)\n",
        tests=(
            "tests/faults/test_worker.py::"
            "test_w10_a_job_is_released_when_its_process_is_dead_and_not_before",
        ),
    ),
    Mutant(
        name="killed-is-success",
        file="jobs/worker/running.py",
        whole="outcomes.lost(claim, running.budget, cause_of_death(exited))",
        broken="outcomes.succeeded(claim, None)",
        tests=(
            "tests/worker/test_supervisor.py::"
            "test_w18_job_that_kills_its_process_fails_and_the_worker_goes_on"
            "[database]",
        ),
    ),
    Mutant(
        name="losses-without-a-budget",
        file="jobs/outcomes.py",
        whole="again = budget.losses + 1 < MAX_LOSSES",
        broken="again = True",
        tests=(
            "tests/test_lifecycle.py::"
            "test_job_whose_process_died_three_times_is_failed",
        ),
    ),
    Mutant(
        name="children-outlive-the-fork-server",
        file="jobs/worker/forkserver.py",
        whole="            _end_with_parent(server)\n",
        broken="",
        tests=(
            "tests/faults/test_worker.py::"
            "test_w4_children_end_with_the_process_that_forked_them",
        ),
    ),
    Mutant(
        name="children-outlive-the-supervisor",
        file="jobs/worker/forkserver.py",
        whole="            if not data:\n                break\n",
        broken="            if not data:\n"
        "                selector.unregister(control)\n"
        "                continue\n",
        tests=(
            "tests/worker/test_supervisor.py::"
            "test_no_process_is_left_when_the_supervisor_is_killed[database]",
        ),
    ),
)


def main(names: list[str]) -> int:
    """Run these mutants, or all. The exit code is 1 if one was not caught."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        say(f"no such mutant: {', '.join(sorted(unknown))}. There are:")
        say(*(f"  {mutant.name}" for mutant in MUTANTS))
        return 2
    chosen = [mutant for mutant in MUTANTS if mutant.name in names or not names]
    say("the same tests on the whole build")
    for database in dict.fromkeys(mutant.database for mutant in chosen):
        tests = [t for m in chosen if m.database == database for t in m.tests]
        with copied_tree() as tree:
            output = run_tests(tree, database, dict.fromkeys(tests))
        if output is None or not re.search(r"^\d+ passed in ", output, re.MULTILINE):
            say(output or "", "They must all pass, and none may be skipped.")
            return 1
    verdicts = []
    for mutant in chosen:
        begun = time.monotonic()
        verdict, detail = verdict_on(mutant)
        took = time.monotonic() - begun
        say(f"{verdict} {mutant.name} ({took:.0f} s)", f"    {detail}")
        verdicts.append((mutant.name, verdict, detail.partition(" - ")[0]))
    say("", "| mutant | verdict | by |", "|---|---|---|")
    say(*(f"| {' | '.join(row)} |" for row in verdicts))
    missed = sum(verdict != "caught" for _, verdict, _ in verdicts)
    say("", f"{len(verdicts) - missed} of {len(verdicts)} caught")
    return 1 if missed else 0


def verdict_on(mutant: Mutant) -> tuple[str, str]:
    """Make the mistake and run the tests; the verdict, and which test failed and how."""
    with copied_tree() as tree:
        file = tree / mutant.file
        source = file.read_text()
        if (found := source.count(mutant.whole)) != 1:
            return "STALE", (
                f"what it replaces is {found} times in {mutant.file}, and must be there "
                "once: keep the mutant in step with the code"
            )
        file.write_text(source.replace(mutant.whole, mutant.broken))
        compile(file.read_text(), str(file), "exec")
        output = run_tests(tree, mutant.database, mutant.tests)
    if output is None or "from pytest-timeout" in output:
        return "TIMED OUT", "no test failed, they hung"
    if failed := re.search(r"^FAILED (.+)$", output, re.MULTILINE):
        return "caught", failed[1]
    return "SURVIVED", output.strip().rpartition("\n")[2]


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of the working tree without what git ignores, until the block ends."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    with tempfile.TemporaryDirectory(
        prefix="jobsite-mutant-", ignore_cleanup_errors=True
    ) as directory:
        tree = Path(directory).resolve()
        for name in listed.stdout.split("\0"):
            if (ROOT / name).is_file():  # git also names those that were deleted
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        try:
            yield tree
        finally:
            end_processes_in(tree)


def run_tests(tree: Path, database: str, tests: Iterable[str]) -> str | None:
    """Run these tests up to the first failure; their output, or None if they hung."""
    url = f"sqlite:///{tree}/db.sqlite3"
    if database == "postgresql":
        url = urlsplit(services.postgresql_url())._replace(path="/mutants").geturl()
    # In CI a test whose service is missing fails, and is not skipped.
    environ = os.environ | {
        "CI": "1",
        "DATABASE_URL": url,
        "JOBS_TEST_RABBITMQ_URL": services.rabbitmq_url(),
    }
    # A test that fails has caught the mutant: it is not repeated.
    options = ["-q", "-rf", "--exitfirst", "--tb=short", "--force-reruns=0"]
    options += ["-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=tree,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None


def end_processes_in(tree: Path) -> None:
    """Kill what a broken build left behind: processes whose directory is in its tree."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(tree):
                process.kill()


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except services.Missing as missing:
        sys.exit(f"devtools.mutants: {missing}")
