"""How a page stays up to date while its rows change.

live.js asks for the page again and again, with the header X-Live. The answer is 304 unless
something that the page shows has changed, and else the part of the page that moves. Finding
that out costs a few small queries.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.crypto import salted_hmac
from django.utils.translation import get_language
from django.views.decorators.http import require_safe

View = Callable[..., HttpResponse]

#: What live.js sends: the part of the page that moves is enough of an answer.
LIVE_HEADER = "X-Live"


def for_viewers(view: View) -> View:
    """Send anonymous people to the login page; answer 403 to those who may not view jobs."""
    return require_safe(
        login_required(permission_required("jobs.view_job", raise_exception=True)(view))
    )


def respond(
    request: HttpRequest,
    *,
    page: str,
    fragment: str,
    context: Callable[[], dict[str, Any]],
    version: Sequence[Any],
) -> HttpResponse:
    """Render the page, or its fragment for live.js, or answer 304.

    `version` has whatever changes when the page does; `context` is only called to render.
    """
    live = LIVE_HEADER in request.headers
    etag = _etag(live, request.user.pk, get_language(), *version)
    response = get_conditional_response(request, etag=etag)
    if response is None:
        response = render(request, fragment if live else page, context())
    response["ETag"] = etag
    # no-store: after a person signed out, the browser does not show what they saw.
    response["Cache-Control"] = "no-store, private"
    patch_vary_headers(response, ["Cookie", LIVE_HEADER])
    return response


def _etag(*version: Any) -> str:
    text = json.dumps(version, default=str)
    return f'"{salted_hmac("jobs.etag", text, algorithm="sha256").hexdigest()[:32]}"'
