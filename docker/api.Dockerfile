# The HTTP API of a deployment with workers: no torch, no weights. All work goes through Redis (CDC_REDIS_URL).
#   docker build -f docker/api.Dockerfile -t cdc-api .

# The tag is what is tested; for a build that never changes add the digest the registry gives for it:
#   --build-arg BASE_DIGEST=@sha256:...
ARG BASE=python:3.11-slim-bookworm
ARG BASE_DIGEST=""

FROM ${BASE}${BASE_DIGEST} AS build
# Not empty: with what exports traces.
ARG OTEL=""
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils \
 && rm -rf /var/lib/apt/lists/*
COPY requirements/api.lock requirements/build.lock requirements/otel.lock requirements/
RUN python -m venv --without-pip /opt/cdc \
 && python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-compile --no-deps --require-hashes -r requirements/api.lock
RUN if [ -n "${OTEL}" ]; then python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps \
    --require-hashes -r requirements/otel.lock; fi
RUN python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY model model
COPY service service
RUN rm -f model/weights/*.safetensors \
 && /opt/build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /opt/wheels ./client . \
 && python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-compile --no-deps --no-index \
    --find-links /opt/wheels cdc-client cdc-codec
# Bytecode (39 MB), tests, numpy's compilers, a second viewer of documentation and uvloop's symbols: a third of the
# environment, which serving never reads.
RUN find /opt/cdc -depth -type d -name tests -exec rm -r {} + \
 && rm -r /opt/cdc/lib/python3.11/site-packages/numpy/f2py /opt/cdc/lib/python3.11/site-packages/numpy/distutils \
 && rm /opt/cdc/lib/python3.11/site-packages/fastapi_offline/static/redoc.standalone.js \
 && strip --strip-unneeded /opt/cdc/lib/python3.11/site-packages/uvloop/loop.*.so

FROM ${BASE}${BASE_DIGEST}
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="cdc-api" \
      org.opencontainers.image.description="Image compression with a conditional-diffusion codec: the HTTP API" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/cdc /opt/cdc
# HOME, because a user without an entry in /etc/passwd has none; all that is written goes to /tmp.
ENV PATH=/opt/cdc/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    CDC_HOST=0.0.0.0 \
    CDC_PORT=8000 \
    CDC_METRICS_PORT=9100 \
    CDC_CACHE_DIR=/tmp/cdc
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "service.probe", "api"]
CMD ["cdc", "serve"]
