# A worker, or any other program of irs: docker build -t irs . ; docker run -e IRS_STACK=my-name irs worker
# EXTRAS: what to install of irs; `worker` alone, `web,scaler,flower`, or both. TORCH_INDEX: where a worker's torch comes from.

FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=worker
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Before the sources: torch is the largest part and seldom changes.
RUN python -m venv /opt/irs && case ",$EXTRAS," in *,worker,*) \
        /opt/irs/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision ;; esac
WORKDIR /source
COPY . .
RUN /opt/irs/bin/pip install --no-cache-dir ".[$EXTRAS]"

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home irs
COPY --from=build /opt/irs /opt/irs
# By number: Kubernetes cannot tell of a name whether it is root.
USER 10001
ENV PATH=/opt/irs/bin:$PATH PYTHONUNBUFFERED=1 IRS_HEALTH_PORT=9100
# Of a worker, and of the page and others where their port is named instead.
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['IRS_HEALTH_PORT'] + '/healthz', timeout=5)"]
ENTRYPOINT ["irs"]
CMD ["worker"]
