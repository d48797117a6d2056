"""Log lines for machines: one JSON object a line."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

#: The attributes of every record. All others are fields that the caller added.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """A record as one line of JSON, with the fields that were given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            name: value for name, value in vars(record).items() if name not in _STANDARD
        }
        fields |= {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            fields["exception"] = record.exc_text
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        # A value that JSON does not know is written as Python prints it. Text is escaped
        # beyond ASCII, so that no terminal or locale can spoil a line.
        return json.dumps(fields, default=str, skipkeys=True)
