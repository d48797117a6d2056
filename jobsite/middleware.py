"""An answer while the database is away, and a header that Django 5.2 cannot send."""

import logging
from collections.abc import Callable

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

logger = logging.getLogger("jobs.site")

#: Seconds after which a client may try again.
RETRY_SECONDS = 5

GetResponse = Callable[[HttpRequest], HttpResponse]


class DatabaseAwayMiddleware:
    """Answers 503, with a sentence, when a view fails because the database is away."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        if not isinstance(exception, OperationalError | InterfaceError):
            return None
        logger.error("%s %s", request.method, request.path, exc_info=exception)
        return HttpResponse(
            "The database does not answer at the moment. Try again in a few seconds, and "
            "check then whether your last change was saved.\n",
            content_type="text/plain; charset=utf-8",
            status=503,
            headers={"Retry-After": str(RETRY_SECONDS), "Cache-Control": "no-store"},
        )


class ContentSecurityPolicyMiddleware:
    """Sends SECURE_CSP, as `django.middleware.csp` does. Django 6 has its own."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.policy = "; ".join(
            f"{directive} {' '.join(sources)}"
            for directive, sources in settings.SECURE_CSP.items()
        )

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # Django's debug pages have inline styles and scripts.
        if not (settings.DEBUG and response.status_code in (404, 500)):
            response.headers.setdefault("Content-Security-Policy", self.policy)
        return response
