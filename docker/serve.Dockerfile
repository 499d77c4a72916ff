# The lookup service: no engine, no torch, no compiler. From the repository's root:
#   docker build -f docker/serve.Dockerfile -t batchinfer-serve .
# Python's minor version is that of the runner's image, so that both know the same Unicode and make the same lookup keys.
FROM python:3.12-slim-trixie AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY batchinfer batchinfer
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/batchinfer \
    && set -- /wheels/*.whl \
    && /opt/batchinfer/bin/python -m pip install --no-cache-dir "${1}[serve,match]"

FROM python:3.12-slim-trixie

# The user is that of docker/run.Dockerfile: both write to the volume that they share.
RUN groupadd --gid 10001 batchinfer \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent batchinfer \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /opt/batchinfer /opt/batchinfer
ENV PATH=/opt/batchinfer/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    BATCHINFER_HOME=/data
USER 10001:10001
EXPOSE 8080

# /livez, not /readyz: one damaged version must not bring the whole service down. No proxy stands between a host and itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/livez', timeout=4)"]

# It does not start before there is an API key: see docs/docker.md.
ENTRYPOINT ["batchinfer"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
