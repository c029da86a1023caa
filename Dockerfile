# Ratchet in two images (docs/deploying.md has compose files and a chart that use them):
#
#   docker build --target slim -t ratchet-slim .   # record, branch, assemble, otlp, serve: no torch
#   docker build --target full -t ratchet .        # all roles, the embedded engine and the demo's environments
#
# Both run as user 10001, write to /var/lib/ratchet and /tmp alone, and so start with a read-only root.
# Interfaces listen on loopback unless RATCHET_SERVING__HOST and its like say 0.0.0.0, which a container needs to be
# reached from outside it. They then refuse to start without a token; make the first one in the same volume:
#
#   docker run --rm -v ratchet:/var/lib/ratchet ratchet token new NAME --role admin
#
# Tokens cross the network as they are (docs/access.md): put a proxy with TLS before the port, or keep it on a network of
# the pod or of the host.

FROM python:3.11-slim AS system
# Isolation of sandboxes: in a container without user namespaces they get that of Landlock (docs/isolation.md). `tini`
# reaps what sandboxes leave behind, such as a Java runtime's children.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap libseccomp2 tini \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 ratchet \
    && useradd --uid 10001 --gid ratchet --no-log-init --create-home --home-dir /var/lib/ratchet ratchet
ENV PATH=/opt/ratchet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RATCHET_HOME=/var/lib/ratchet

FROM python:3.11-slim AS slim-packages
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/ratchet
ENV PATH=/opt/ratchet/bin:$PATH
WORKDIR /src
COPY requirements-slim.lock ./
RUN pip install --no-deps --requirement requirements-slim.lock

FROM slim-packages AS full-packages
# The build of torch for CPUs, which is far smaller than the one for GPUs. Name another index for another build.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements-demo.lock ./
RUN pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple \
        --constraint requirements-demo.lock "$(grep '^torch==' requirements-demo.lock)" \
    && pip install --no-deps --requirement requirements-demo.lock

# Ratchet itself and the client that it is built on, as wheels.
FROM slim-packages AS wheel
COPY requirements-demo.lock ./
RUN pip install --no-deps "$(grep '^setuptools==' requirements-demo.lock)"
COPY pyproject.toml README.md LICENSE ./
COPY clients/python clients/python
COPY streams streams
COPY learners learners
COPY evaluation evaluation
COPY daemon daemon
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python .

FROM slim-packages AS slim-installed
RUN --mount=from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl

FROM full-packages AS full-installed
RUN --mount=from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl

FROM system AS run
USER 10001:10001
# The working folder too: `ratchet.toml` is looked for there.
WORKDIR /var/lib/ratchet
VOLUME /var/lib/ratchet
EXPOSE 8420
# Answers while the serve role is up. For a container of another role give the command with that role's port.
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8420/healthz', timeout=4)"]
ENTRYPOINT ["tini", "--", "ratchet"]

FROM run AS slim
COPY --from=slim-installed /opt/ratchet /opt/ratchet
# It needs RATCHET_KAFKA__BOOTSTRAP and RATCHET_ENGINE__URL: the embedded ones are in the other image.
CMD ["run", "--roles", "record,branch,serve,assemble"]

FROM run AS full
COPY --from=full-installed /opt/ratchet /opt/ratchet
CMD ["run"]
