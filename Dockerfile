# syntax=docker/dockerfile:1
# Build: docker build -t redan .
# Run:   docker run --read-only --tmpfs /tmp -p 6379:6379 -p 7400:7400 -v redan:/data -e REDAN_REQUIREPASS=… redan
# Three nodes and Prometheus: compose.yaml.
#
# The first stage has the compiler, pip and the sources, the second only what runs. Nothing is written outside /data.
# A mirror of PyPI: docker build --secret id=pip.conf,src=pip.conf … leaves nothing of it in the image.

FROM python:3.11-slim-bookworm AS build
# A few dependencies have no wheel and are compiled here, with what Debian has today: none of it goes further.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements.lock requirements-dev.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps "$(grep '^setuptools==' requirements-dev.lock)" \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels --requirement requirements.lock
COPY pyproject.toml LICENSE ./
COPY proto/redan proto/redan
COPY clients/python/redan_client clients/python/redan_client
COPY persistence persistence
COPY replication replication
COPY kvservice kvservice
# The environment that runs never has pip: that of the build installs into it, offline.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/redan \
    && /opt/build/bin/pip --python /opt/redan/bin/python install --no-index --no-deps /wheels/*.whl

FROM python:3.11-slim-bookworm
# The base brings a pip of its own, which nothing here needs.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.11/ensurepip /usr/local/lib/python3.11/site-packages/* \
    && groupadd --gid 10001 redan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin redan \
    && install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=build /opt/redan /opt/redan
ENV PATH=/opt/redan/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REDAN_DATA_DIR=/data \
    REDAN_RESP_ADDR=0.0.0.0:6379 \
    REDAN_GRPC_ADDR=0.0.0.0:7400 \
    REDAN_PEER_ADDR=0.0.0.0:7401 \
    REDAN_ADMIN_ADDR=0.0.0.0:7402
# Last, for what changes with every commit needs no other layer anew.
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="Redan" \
      org.opencontainers.image.description="A key-value service with the Redis API and the guarantees of a consensus log" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 6379 7400 7401 7402
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7402/livez', timeout=4)"]
ENTRYPOINT ["redan"]
CMD ["serve"]
