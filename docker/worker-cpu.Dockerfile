# A worker for machines without a GPU: takes jobs from Redis (CDC_REDIS_URL).
#   docker build -f docker/worker-cpu.Dockerfile -t cdc-worker-cpu .
#
# TORCH_INDEX is a package index whose torch is built for CPUs alone. Empty: torch of the default index, which brings
# several GB of CUDA libraries that this image never loads. The lock has the hashes of the default index's torch, so give
# the hash of the other one: TORCH_SHA256. Everything else is checked against the lock in both cases.

# The tag is what is tested; for a build that never changes add the digest the registry gives for it:
#   --build-arg BASE_DIGEST=@sha256:...
ARG BASE=python:3.11-slim-bookworm
ARG BASE_DIGEST=""

FROM ${BASE}${BASE_DIGEST} AS build
# Not empty: with what exports traces.
ARG OTEL=""
ARG TORCH_INDEX=""
ARG TORCH_SHA256=""
WORKDIR /src
COPY requirements/serve.lock requirements/build.lock requirements/otel.lock requirements/
RUN python -m venv --without-pip /opt/cdc \
 && if [ -z "${TORCH_INDEX}" ]; then cp requirements/serve.lock /tmp/rest.lock; else \
    awk '/^[^ ]/ { skip = /^(torch|triton|nvidia-|cuda-)/ } !skip' requirements/serve.lock > /tmp/rest.lock \
    && grep -o '^torch==[0-9.]*' requirements/serve.lock > /tmp/torch.txt \
    && if [ -n "${TORCH_SHA256}" ]; then sed -i "s/$/ --hash=sha256:${TORCH_SHA256}/" /tmp/torch.txt; fi \
    && python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" \
       -r /tmp/torch.txt; fi \
 && python -m pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps --require-hashes -r /tmp/rest.lock
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
LABEL org.opencontainers.image.title="cdc-worker-cpu" \
      org.opencontainers.image.description="Image compression with a conditional-diffusion codec: a worker for CPUs" \
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
    CDC_HOST=0.0.0.0 \
    CDC_METRICS_PORT=9100 \
    CDC_CACHE_DIR=/var/cache/cdc \
    CDC_DEVICES=cpu
USER 10001:10001
WORKDIR /tmp
EXPOSE 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-m", "service.probe", "worker", "--ready"]
CMD ["cdc", "worker"]
