# The gateway alone: no development services, no compiler, no root. Build: docker build -t tollway .
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock .
RUN python -m venv /opt/tollway \
    && /opt/tollway/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r requirements.lock
COPY . .
RUN python -m venv /tmp/build \
    && awk '/^[a-z0-9]/ { keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' requirements-dev.lock > build.lock \
    && /tmp/build/bin/pip install --no-cache-dir --no-deps --require-hashes -r build.lock \
    && /tmp/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /tmp/wheel . \
    && /opt/tollway/bin/pip install --no-cache-dir --no-deps /tmp/wheel/*.whl \
    && /opt/tollway/bin/pip uninstall -y pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tollway
COPY --from=build /opt/tollway /opt/tollway
ENV PATH=/opt/tollway/bin:$PATH PYTHONUNBUFFERED=1 TOLLWAY_HOST=0.0.0.0
USER 10001
EXPOSE 8402
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('TOLLWAY_PORT', 8402)}/health/live\", timeout=2)"]
CMD ["tollway", "serve"]
