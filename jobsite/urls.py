"""The site's URLs: the status pages, the admin, logging in, and probes."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path
from django.utils.translation import gettext_lazy as _
from django.views.generic import RedirectView

from jobs import health

admin.site.site_header = _("Jobsite")
admin.site.site_title = _("Jobsite")
admin.site.index_title = _("Administration")


def favicon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for this address by themselves."""
    return redirect(static("jobs/favicon.svg"))


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="jobs:list")),
    path("jobs/", include("jobs.urls")),
    path("admin/", admin.site.urls),
    # The admin's own login is for staff only; the status pages are for others, too.
    path(
        "login/",
        LoginView.as_view(
            template_name="jobs/login.html",
            extra_context={
                "title": _("Log in"),
                "site_title": admin.site.site_title,
                "site_header": admin.site.site_header,
            },
        ),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("favicon.ico", favicon),
    # For probes: no login, and no trailing slash.
    path("healthz", health.healthz),
    path("readyz", health.readyz),
]
