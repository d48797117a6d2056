"""The form that adds a job. What a job may hold is decided in `values` and `enqueue`."""

import json
from collections.abc import Callable
from typing import Any, cast

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils.text import Truncator
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import discovery, signatures, values
from jobs.compat import Task
from jobs.models import Job, Queue

#: What the task function is called with. These fields are checked together.
CALL = ("task", "args", "kwargs")


class JSONText(forms.JSONField):
    """JSON, as the person typed it. Empty text means the empty list or object."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 60, "spellcheck": "false"})

    def __init__(self, *, empty: Callable[[], Any], name: str, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)
        self.empty = empty
        self.name = name

    def to_python(self, value: Any) -> Any:
        if value in self.empty_values:
            return self.empty()
        try:
            parsed = json.loads(value, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise ValidationError(
                _(
                    "This is not JSON: %(problem)s at line %(line)d, column %(column)d. "
                    'Text needs double quotes: ["Hello..."].'
                )
                % {
                    "problem": error.msg,
                    "line": error.lineno,
                    "column": error.colno,
                }
            ) from None
        except RecursionError:
            raise ValidationError(
                _("This is nested more than %(depth)d deep.")
                % {"depth": values.MAX_DEPTH}
            ) from None
        except ValueError:
            # Python refuses to read a whole number of more than 4300 digits.
            raise ValidationError(
                _("This has a whole number of more than 64 bits.")
            ) from None
        # Checked here and not only later: what comes next is recursive, and would fail on
        # a value that is too deep.
        if problem := values.json_problem(parsed, self.name):
            raise ValidationError(problem)
        return parsed

    def bound_data(self, data: Any, initial: Any) -> Any:
        # The form shows again exactly what was typed, whether it is JSON or not.
        return initial if self.disabled else InvalidJSONInput(data or "")

    def prepare_value(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        return super().prepare_value(value)


class Suggestions(forms.TextInput):
    """A line of text, with suggestions."""

    template_name = "jobs/widgets/datalist.html"

    def __init__(self, suggestions: Callable[[], list[str]], attrs: Any = None) -> None:
        super().__init__(attrs)
        self.suggestions = suggestions

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        listed = {**(attrs or {}), "list": f"{name}-suggestions"}
        context = super().get_context(name, value, listed)
        context["widget"]["suggestions"] = self.suggestions()
        return context


class JobForm(forms.ModelForm):
    """A new job. Each error is one sentence beside its field."""

    task = forms.CharField(label=gettext_lazy("Task"), widget=forms.Select)
    args = JSONText(
        label=gettext_lazy("Arguments"),
        empty=list,
        name="args",
        help_text=gettext_lazy(
            'A JSON list of the task\'s arguments, in their order: ["Hello World!..."].'
        ),
    )
    kwargs = JSONText(
        label=gettext_lazy("Named arguments"),
        empty=dict,
        name="kwargs",
        help_text=gettext_lazy('A JSON object: {"text": "Hello World!..."}.'),
    )
    queue = forms.CharField(
        label=gettext_lazy("Queue"),
        required=False,
        widget=Suggestions(Queue.objects.names, {"class": "vTextField"}),
        help_text=gettext_lazy(
            "Empty: the task's own queue. A new name makes a new queue."
        ),
    )
    run_after = forms.DateTimeField(
        label=gettext_lazy("Not before"),
        required=False,
        widget=forms.DateTimeInput(
            format="%Y-%m-%dT%H:%M",
            attrs={"type": "datetime-local", "class": "vTextField"},
        ),
    )

    class Meta:
        model = Job
        fields = [
            "task",
            "args",
            "kwargs",
            "queue",
            "priority",
            "run_after",
            "max_attempts",
            "timeout",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        select = cast(forms.Select, self.fields["task"].widget)
        select.choices = _task_choices()
        self.fields["run_after"].help_text = _(
            "Empty: now. In the time zone %(zone)s."
        ) % {"zone": get_current_timezone_name()}

    def clean_queue(self) -> Any:
        return self.cleaned_data["queue"] or None

    def clean_run_after(self) -> Any:
        # Empty means now, by the database's clock and not by that of this process.
        default = Job._meta.get_field("run_after").get_default()
        return self.cleaned_data["run_after"] or default

    def add_error(self, field: str | None, error: Any) -> None:
        """Put an error beside its field, or above the form if the form lacks the field."""
        if field is not None or not hasattr(error, "error_dict"):
            super().add_error(field, error)
            return
        # The model's own errors. It never saw what the form could not read, so what it says
        # about such a field is of no use, nor about a call of which a part is missing.
        unread = set(self.errors)
        if unread & set(CALL):
            unread |= set(CALL)
        for name, problems in error.error_dict.items():
            if name in unread:
                continue
            shown = name if name in self.fields else None
            # The last one is from Job.clean, and is the clearest.
            super().add_error(
                shown if name != NON_FIELD_ERRORS else None, problems[-1:]
            )


def _task_choices() -> list[tuple[str, Any]]:
    """Every task with its parameters, grouped by module."""
    modules: dict[str, list[tuple[str, str]]] = {}
    for path, task in discovery.tasks().items():
        modules.setdefault(path.rpartition(".")[0], []).append((path, _call(task)))
    return [("", "---------"), *modules.items()]


def _call(task: Task) -> str:
    return Truncator(signatures.summary(task)).chars(100)


def _refuse_constant(name: str) -> None:
    raise ValidationError(_("%(name)s is not JSON.") % {"name": name})
