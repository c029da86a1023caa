# `ratchet run` in a container.
#
#   docker build -t ratchet .
#   docker run --init --stop-timeout 30 -v ratchet:/var/lib/ratchet \
#     -e RATCHET_KAFKA__BOOTSTRAP=kafka:9092 -e RATCHET_SERVING__HOST=0.0.0.0 ratchet
#
# The gateway and the control API listen on loopback unless RATCHET_SERVING__HOST says 0.0.0.0, which a container needs to
# be reached from outside it. It then refuses to start without a token; make the first one in the same volume:
#
#   docker run --rm -v ratchet:/var/lib/ratchet ratchet token new NAME --role admin
#
# Tokens cross the network as they are (docs/access.md): put a proxy with TLS before the port, or keep it on a network of
# the pod or of the host.
# `--init`: sandboxes start processes of their own (Java), and something must reap those that are left.
FROM python:3.11-slim

# Isolation of sandboxes. In a container without user namespaces they get those of Landlock (docs/isolation.md).
RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap libseccomp2 \
    && rm -rf /var/lib/apt/lists/*

# The build of torch for CPUs, which is far smaller than the one for GPUs. Name another index for another build.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

WORKDIR /src
COPY requirements.lock ./
RUN pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple \
        --constraint requirements.lock "$(grep '^torch==' requirements.lock)"
RUN pip install --no-deps --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY learners learners
COPY evaluation evaluation
COPY daemon daemon
# The lock file has brought setuptools, so nothing more is fetched.
RUN pip install --no-deps --no-build-isolation . && rm -rf /src/*

RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/ratchet ratchet
USER ratchet
# The working folder too: `ratchet.toml` is looked for there.
WORKDIR /var/lib/ratchet
ENV RATCHET_HOME=/var/lib/ratchet
VOLUME /var/lib/ratchet

EXPOSE 8420
# Answers while the serve role is up. For a container of another role alone give --health-cmd with that role's port
# (docs/operating.md).
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8420/healthz', timeout=4)"]

ENTRYPOINT ["ratchet"]
CMD ["run"]
