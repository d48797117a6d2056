"""Addresses of the status pages."""

from django.urls import path

from jobs.views.job_detail import job_detail
from jobs.views.job_list import job_list

app_name = "jobs"

urlpatterns = [
    path("", job_list, name="list"),
    path("<uuid:job_id>/", job_detail, name="detail"),
]
