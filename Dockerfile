# What is in the image, and how large: docs/container.md.
# docker build -t heed . && docker run --rm -p 2587:2587 -p 9125:9125 -v heed:/var/lib/heed heed
FROM python:3.11-slim AS build
WORKDIR /source
RUN python -m venv /opt/heed
# What Heed depends on changes less often than Heed: its own layer, from the metadata and empty packages alone.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir config metrics suppression bounce mta && /opt/heed/bin/pip install --no-cache-dir . && /opt/heed/bin/pip uninstall -y heed-mta
COPY config config
COPY metrics metrics
COPY suppression suppression
COPY bounce bounce
COPY mta mta
# What only those need who install, test or compile is left behind; byte code stays, because the daemon may not write any.
RUN /opt/heed/bin/pip install --no-cache-dir --no-deps . \
    && /opt/heed/bin/pip uninstall --yes pip setuptools \
    && find /opt/heed -depth \( -type d -name tests -o -type f -regex '.*\.\(pyi\|pyx\|pxd\|c\|h\|a\)' \) -exec rm -rf {} +

FROM python:3.11-slim
RUN useradd --system --uid 800 --home-dir /var/lib/heed --create-home --shell /usr/sbin/nologin heed \
    && chmod 700 /var/lib/heed
COPY --from=build /opt/heed /opt/heed
USER heed
WORKDIR /var/lib/heed
VOLUME /var/lib/heed
# Inside a container the loopback interface is nobody's: listen on all, and publish what is wanted.
ENV PATH=/opt/heed/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEED_DATA_DIR=/var/lib/heed \
    HEED_SUBMISSION__LISTEN=0.0.0.0:2587 \
    HEED_SUBMISSION__LISTEN_TLS=0.0.0.0:2465 \
    HEED_INBOUND__LISTEN=0.0.0.0:2525 \
    HEED_WEB__LISTEN=0.0.0.0:8025 \
    HEED_METRICS__LISTEN=0.0.0.0:9125
EXPOSE 2587 2465 2525 8025 9125
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9125/healthz', timeout=2)"]
ENTRYPOINT ["heed"]
CMD ["run"]
