"""Named places between two durable steps, at which the fault tests make a process fail.

Nothing happens there until a test installs a hook in the process.
"""

from collections.abc import Callable

#: In the order in which a job passes them.
NAMES = (
    "save_before_commit",
    "save_after_commit",
    "relay_after_select",
    "relay_before_confirm",
    "relay_before_mark",
    "relay_after_mark",
    "hint_received",
    "claim_before_commit",
    "claim_after_commit",
    "job_dispatched",
    "job_received",
    "function_begins",
    "function_ended",
    "complete_before_commit",
    "complete_after_commit",
    "report_sent",
    "report_received",
    "finish_before_commit",
    "finish_after_commit",
    "acknowledged",
    "child_reaped",
    "lease_before_renewal",
    "lease_after_renewal",
    "rescue_before_commit",
    "rescue_after_commit",
    "prune_before_commit",
    "prune_after_commit",
)

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Have this process call `hook` with the name of every point that it reaches."""
    global _hook  # noqa: PLW0603
    _hook = hook


def reach(name: str) -> None:
    if _hook is not None:
        _hook(name)
