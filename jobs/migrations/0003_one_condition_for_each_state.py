"""What goes with each status, in one condition: PostgreSQL reads it anew for each statement."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0002_table_that_stays_fast")]

    operations = [
        # Before the others go: no row is ever without them.
        migrations.AddConstraint(
            model_name="job",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("cancel_requested_at__isnull", True),
                        ("finished_at__isnull", True),
                        ("status", "queued"),
                        ("worker__isnull", True),
                    ),
                    models.Q(
                        ("finished_at__isnull", True),
                        ("status", "running"),
                        ("worker__isnull", False),
                    ),
                    models.Q(
                        ("finished_at__isnull", False),
                        ("status__in", ("succeeded", "failed", "cancelled")),
                        ("worker__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="jobs_job_legal_state",
            ),
        ),
        *(
            migrations.RemoveConstraint(model_name="job", name=name)
            for name in (
                "jobs_job_legal_status",
                "jobs_job_running_has_worker",
                "jobs_job_finished_has_time",
                "jobs_job_called_off_never_waits",
            )
        ),
    ]
