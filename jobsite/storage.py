"""Static files with a hash in their names, once they were collected; as they are before."""

from typing import Any

from whitenoise.storage import (  # type: ignore[import-untyped]
    CompressedManifestStaticFilesStorage,
)


class StaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """A clone that never ran collectstatic still shows its pages with their styles."""

    manifest_strict = False

    def hashed_name(self, name: str, *args: Any, **kwargs: Any) -> str:
        try:
            return str(super().hashed_name(name, *args, **kwargs))
        except ValueError:
            # Not collected: whitenoise finds it by its own name (WHITENOISE_USE_FINDERS).
            return name
