# syntax=docker/dockerfile:1
# Build: docker build -t redan .
# Run:   docker run -p 6379:6379 -p 7400:7400 -v redan:/data redan
# The first stage has pip and the sources, the second only what runs. Nothing writes outside /data.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/redan
WORKDIR /src
COPY requirements.lock requirements-dev.lock ./
# setuptools builds the program; it goes with the build stage's own interpreter and not into the image.
RUN /opt/redan/bin/pip install --no-deps -r requirements.lock \
    && pip install "$(grep '^setuptools==' requirements-dev.lock)"
COPY pyproject.toml LICENSE ./
COPY proto/redan proto/redan
COPY persistence persistence
COPY replication replication
COPY kvservice kvservice
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/redan/bin/pip install --no-deps /wheels/*.whl \
    && /opt/redan/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Redan" \
      org.opencontainers.image.description="A key-value service with the Redis API and the guarantees of a consensus log" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 redan \
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
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 6379 7400 7401 7402
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7402/livez', timeout=2)"]
ENTRYPOINT ["redan"]
CMD ["serve"]
