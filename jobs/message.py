"""The message: a hint that says "look at job X", and nothing else.

A job's id is text here and wherever hints and claims are: as str() writes a UUID.
"""

import json
from uuid import UUID

from jobs.errors import BadMessage

VERSION = 1

#: A hint is some fifty bytes. Anything larger is not ours, and is not parsed.
MAX_BYTES = 1024


def encode(job_id: str) -> bytes:
    return b'{"v":%d,"job":"%s"}' % (VERSION, job_id.encode())


def decode(body: bytes) -> str:
    """The job's id, or BadMessage with a sentence that says what is wrong."""
    if len(body) > MAX_BYTES:
        raise BadMessage(f"{len(body)} bytes, where a hint has at most {MAX_BYTES}")
    try:
        content = json.loads(body)
    # RecursionError: brackets nested a thousand deep still fit into MAX_BYTES.
    except (ValueError, RecursionError):
        raise BadMessage(f"not JSON: {body[:60]!r}") from None
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise BadMessage(f"not a version {VERSION} hint: {body[:60]!r}")
    try:
        return str(UUID(content.get("job")))
    except (ValueError, TypeError, AttributeError):
        raise BadMessage(f"not a job's id: {body[:60]!r}") from None
