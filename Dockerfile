# The image of envtune: one file, two flavours.
#
#   docker build --build-arg FLAVOR=cuda -t envtune:cuda .
#   docker build --build-arg FLAVOR=cpu -t envtune:cpu .
#
# `make image` does the same and labels it, also where no Docker engine runs. Docker 20.10 and buildah 1.28 read
# it: no heredoc, no COPY --link.

# Debian's python3 is 3.11. torch brings CUDA's libraries and the host its driver, so that one
# base serves both flavours.
ARG BASE_IMAGE=debian:bookworm-20250721-slim@sha256:2424c1850714a4d94666ec928e24d86de958646737b1d113f5b2207be44d37d8

# Wheels that the machine has collected, by --build-context wheels=FOLDER; the public index without.
FROM scratch AS wheels
COPY .dockerignore /

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
SHELL ["/bin/bash", "-Eeuo", "pipefail", "-c"]

# gcc and Python's headers: Triton and Inductor compile while a training runs. NCCL opens the
# libraries of InfiniBand by name, else nodes would talk over TCP. sshd starts only for a PUBLIC_KEY.
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    ca-certificates g++ git ibverbs-providers libibverbs1 libnuma1 librdmacm1 openssh-server python3-dev python3-venv tini \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* /var/log/apt /var/log/dpkg.log

# Any user of group 0 may write where this one may: a cluster picks users at random.
RUN useradd --uid 10001 --gid 0 --shell /bin/bash --password '*' --create-home envtune \
 && mkdir -p /opt/envtune /workspace /run/sshd \
 && chmod 2775 /workspace /home/envtune

# Nothing of ours is below a path that people mount a volume over.
WORKDIR /opt/envtune

# The environments in one layer, since those files that several have are in it once.
ARG FLAVOR=cuda
ARG ENVIRONMENTS="train serve"
ARG FLASH_ATTN_WHEEL=""
COPY requirements*.txt ./
COPY scripts/environments.sh scripts/
RUN --mount=type=bind,from=wheels,target=/wheels \
    scripts/environments.sh "$FLAVOR" "$ENVIRONMENTS" "$FLASH_ATTN_WHEEL"

COPY pyproject.toml README.md LICENSE ./
COPY scripts scripts
COPY templates templates
COPY examples examples
COPY src src
# Where there is MLflow it writes an id of the installation into a home, unless it is told not to.
RUN --mount=type=bind,from=wheels,target=/wheels \
    scripts/environments.sh envtune \
 && HOME=/tmp DO_NOT_TRACK=1 .venv/bin/python -m envtune.engine.embedded demo && chmod -R a+rX demo \
 && ln -s /opt/envtune/scripts/profile.sh /etc/profile.d/envtune.sh
COPY docs docs

# FLAVOR: without a GPU the cuda flavour trains on no CPU by accident. A user without a name has
# none in /etc/passwd, and torch asks for one. Caches lie where a volume may keep them. DeepSpeed is
# imported by accelerate wherever it is installed, and would want nvcc. vLLM's sampler by FlashInfer
# compiles at the first request.
ENV FLAVOR=${FLAVOR} \
    PATH=/opt/envtune/.venv/bin:$PATH \
    HOME=/home/envtune \
    USER=envtune \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/workspace/.cache \
    TRITON_CACHE_DIR=/workspace/.cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/workspace/.cache/inductor \
    AXOLOTL_DO_NOT_TRACK=1 \
    DO_NOT_TRACK=1 \
    DS_IGNORE_CUDA_DETECTION=1 \
    VLLM_USE_FLASHINFER_SAMPLER=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

ARG BASE_IMAGE
ARG VERSION=0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="envtune" \
      org.opencontainers.image.description="Environment variables in, a fine-tuned model out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.envtune.flavor="${FLAVOR}"

WORKDIR /workspace
# 0:0 for platforms that mount a volume of root's and let nobody say who runs (RunPod).
ARG RUN_AS=10001:0
# hadolint ignore=DL3002
USER ${RUN_AS}

# What Docker and Kubernetes send anyway, said because a checkpoint depends on it: a run that gets
# a SIGTERM saves at its next step. tini -g hands it to the shell and to envtune alike.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["envtune", "health"]
ENTRYPOINT ["tini", "-g", "--", "/opt/envtune/scripts/autorun.sh"]
