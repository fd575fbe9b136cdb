# A worker for NVIDIA GPUs: takes jobs from Redis (CDC_REDIS_URL), one device process for each GPU it sees.
#   docker build -f docker/worker-cuda.Dockerfile -t cdc-worker-cuda .
#
# The CUDA libraries are those that torch's own packages bring, each with its hash in the lock; the host gives the driver
# and the container toolkit. There is no compiler inside: CDC_ACCELERATION=compile does not work here, `graphs` does.

# The tag is what is tested; for a build that never changes add the digest the registry gives for it:
#   --build-arg BASE_DIGEST=@sha256:...
ARG BASE=python:3.11-slim-bookworm
ARG BASE_DIGEST=""

FROM ${BASE}${BASE_DIGEST} AS build
# Not empty: with what exports traces.
ARG OTEL=""
WORKDIR /src
COPY requirements/serve.lock requirements/build.lock requirements/otel.lock requirements/
RUN python -m venv --without-pip /opt/cdc \
 && python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps --require-hashes -r requirements/serve.lock
RUN if [ -n "${OTEL}" ]; then python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps \
    --require-hashes -r requirements/otel.lock; fi
RUN python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY model model
COPY service service
RUN /opt/build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /opt/wheels ./client . \
 && python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps --no-index --find-links /opt/wheels cdc-client cdc-codec \
 && mkdir /opt/cache

FROM ${BASE}${BASE_DIGEST}
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="cdc-worker-cuda" \
      org.opencontainers.image.description="Image compression with a conditional-diffusion codec: a worker for GPUs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/cdc /opt/cdc
COPY --from=build --chown=10001:10001 /opt/cache /var/cache/cdc
# HOME and USER, because a user without an entry in /etc/passwd has neither; what is written goes to /tmp and, the
# measured speed profile, to CDC_CACHE_DIR.
ENV PATH=/opt/cdc/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=cdc \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    CDC_HOST=0.0.0.0 \
    CDC_METRICS_PORT=9100 \
    CDC_CACHE_DIR=/var/cache/cdc \
    CDC_DEVICES=auto
USER 10001:10001
WORKDIR /tmp
EXPOSE 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["python", "-m", "service.probe", "worker", "--ready"]
CMD ["cdc", "worker"]
