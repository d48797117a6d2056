"""What the site adds around the pages: its policy, its icon, signing out."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.conftest import MakeJob
from tests.views.conftest import (
    LIST,
    user_with,
)

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "url", [LIST, "/", "/login/", "/admin/login/", "/nowhere/", "/favicon.ico"]
)
def test_every_answer_forbids_inline_and_foreign_scripts(
    client: Client, url: str
) -> None:
    assert client.get(url).headers["Content-Security-Policy"] == (
        "default-src 'self'; object-src 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; form-action 'self'"
    )


def test_favicon_is_there(client: Client) -> None:
    answer = client.get("/favicon.ico", follow=True)
    answer.close()

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/svg+xml"


def test_signing_out_is_a_post_with_a_token(make_job: MakeJob) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user_with("view_job"))

    refused = [client.get("/logout/").status_code, client.post("/logout/").status_code]

    assert refused == [405, 403]
    assert client.get(LIST).status_code == 200
