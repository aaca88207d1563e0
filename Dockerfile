# syntax=docker/dockerfile:1

# One image for every process: `orchestrator serve`, `worker`, `scheduler` and `migrate` are its commands.
ARG PYTHON_VERSION=3.13

# ---- Everything that needs an installer happens here and stays behind.
FROM python:${PYTHON_VERSION}-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PYTHONDONTWRITEBYTECODE=1

RUN python -m venv /opt/venv

# The dependencies change less often than the code, so they are a layer of their own. Only wheels: nothing is compiled.
WORKDIR /app
COPY requirements/base.txt requirements/base.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --require-hashes --only-binary=:all: -r requirements/base.txt

COPY . .
RUN /opt/venv/bin/pip install --no-index --no-deps --no-build-isolation --editable . --editable clients/python \
    && /opt/venv/bin/pip uninstall --yes setuptools pip \
    && python -m compileall -q -j 0 /app /opt/venv/lib

# ---- What runs: the interpreter, the environment, the code.
FROM python:${PYTHON_VERSION}-slim-bookworm

LABEL org.opencontainers.image.title="orchestrator" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATA_DIR=/var/lib/orchestrator

RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && groupadd --gid 10001 orchestrator \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/orchestrator \
        --shell /usr/sbin/nologin orchestrator \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/orchestrator

# Owned by root: the process cannot change its own code.
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

WORKDIR /app
USER 10001:10001
VOLUME /var/lib/orchestrator
EXPOSE 8000
STOPSIGNAL SIGTERM

# For `serve`, the default command; docker-compose.yml says otherwise for processes that listen on no port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]

ENTRYPOINT ["orchestrator"]
CMD ["serve"]
