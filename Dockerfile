# syntax=docker/dockerfile:1
# The server. `--build-arg TORCH=cu130` gives an image for NVIDIA GPUs instead of CPUs.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# torch first: its layer survives every change of this repository.
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.11,<2.14"
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY prefix_store prefix_store
COPY server server
# Versions are the ranges in pyproject.toml; the folder itself has none to pin.
# hadolint ignore=DL3013
RUN pip install ".[server]"

FROM python:${PYTHON_VERSION}-slim
RUN groupadd --system --gid 10001 prefixmux \
    && useradd --system --uid 10001 --gid prefixmux --no-create-home prefixmux \
    && install --directory --owner prefixmux --group prefixmux /data
COPY --from=build /opt/venv /opt/venv
# A container is reached from outside its loopback, so its store needs an API key first:
# `docker run --rm -v prefixmux:/data prefixmux keys create --tenant me --scope admin`.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/huggingface \
    PREFIXMUX_STORE=/data/store \
    PREFIXMUX_HOST=0.0.0.0 \
    PREFIXMUX_PORT=8000
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PREFIXMUX_PORT'] + '/health/live', timeout=4)"]
ENTRYPOINT ["prefixmux"]
CMD ["serve", "--help"]
