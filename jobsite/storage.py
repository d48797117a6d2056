"""Static files: with a hash in their names once they are collected, plain before that."""

from typing import Any

from whitenoise.storage import (  # type: ignore[import-untyped]
    CompressedManifestStaticFilesStorage,
)


class StaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Also serves files that were never collected, as in a fresh clone."""

    manifest_strict = False

    def hashed_name(self, name: str, *args: Any, **kwargs: Any) -> str:
        try:
            return str(super().hashed_name(name, *args, **kwargs))
        except ValueError:
            # Not collected: whitenoise finds the file under its own name (USE_FINDERS).
            return name
