"""Fewer indexes for a row to enter at every change, and room for its next version beside it."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState


class PostgreSQL(migrations.RunSQL):
    """Statements for PostgreSQL, and nothing at all elsewhere."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)


# A job is three dead rows by the time it has ended. Vacuum comes after so many of them,
# however large the table has become, and works at a pace that keeps up with its workers;
# and it leaves the end of the file alone, where giving pages back would lock everybody out.
STORAGE = {
    "fillfactor": 50,
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 10000,
    "autovacuum_vacuum_insert_scale_factor": 0.02,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_vacuum_cost_limit": 2000,
    "vacuum_truncate": "false",
}


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0001_jobs_attempts_workers_queues"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="job",
            name="jobs_job_running",
        ),
        migrations.RemoveIndex(
            model_name="job",
            name="jobs_job_by_status",
        ),
        migrations.RemoveIndex(
            model_name="job",
            name="jobs_job_queued",
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                models.F("queue"),
                models.OrderBy(models.F("priority"), descending=True),
                models.F("run_after"),
                models.F("id"),
                condition=models.Q(("status", "queued")),
                name="jobs_job_queued",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="created_by",
            field=models.ForeignKey(
                db_index=False,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
                verbose_name="created by",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="worker",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="jobs",
                to="jobs.worker",
                verbose_name="worker",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("worker__isnull", False)),
                fields=["worker"],
                name="jobs_job_running",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("status", "failed")),
                fields=["id"],
                name="jobs_job_failed",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("status", "cancelled")),
                fields=["id"],
                name="jobs_job_cancelled",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("created_by__isnull", False)),
                fields=["created_by"],
                name="jobs_job_created_by",
            ),
        ),
        PostgreSQL(
            "ALTER TABLE jobs_job SET ("
            + ", ".join(f"{name} = {value}" for name, value in STORAGE.items())
            + ")",
            f"ALTER TABLE jobs_job RESET ({', '.join(STORAGE)})",
        ),
    ]
