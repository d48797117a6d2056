# One image for the site, the workers and the migrations. Only the commands differ.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_CACHE_DIR=/cache PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
# Before the source, so that a changed line of code reinstalls nothing.
COPY requirements.txt /
RUN --mount=type=cache,target=/cache \
    /venv/bin/pip install --no-deps --require-hashes -r /requirements.txt
WORKDIR /app
COPY manage.py ./
COPY jobs jobs
COPY jobsite jobsite
# Any key will do: the build signs nothing with it.
RUN SECRET_KEY=build /venv/bin/python manage.py collectstatic --noinput \
    && /venv/bin/python -m compileall -q /venv /app

FROM python:${PYTHON}-slim
RUN groupadd --gid 10001 jobsite \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin jobsite
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# The heartbeat files of gunicorn's workers are in memory: a slow disk must not look like a
# hang.
CMD ["gunicorn", "jobsite.wsgi", "--bind=0.0.0.0:8000", "--worker-class=gthread", \
     "--workers=2", "--threads=8", "--worker-tmp-dir=/dev/shm", "--no-control-socket", \
     "--access-logfile=-"]
