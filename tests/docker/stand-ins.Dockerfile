# What the composition takes from image registries, for machines that reach none: from Debian, and an S3 server from PyPI.
ARG BASE_IMAGE=debian:bookworm-slim
ARG BUILD_IMAGE=${BASE_IMAGE}

FROM ${BASE_IMAGE} AS valkey
RUN apt-get update && apt-get install --yes --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
    && ln -s redis-server /usr/bin/valkey-server && ln -s redis-cli /usr/bin/valkey-cli
WORKDIR /data
CMD ["valkey-server"]

FROM ${BUILD_IMAGE} AS store
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/store && /opt/store/bin/pip install --no-cache-dir ministack==1.5.33
ENV GATEWAY_PORT=8333 S3_PERSIST=1 S3_DATA_DIR=/data PATH=/opt/store/bin:$PATH
WORKDIR /data
CMD ["ministack"]

FROM ${BASE_IMAGE} AS prometheus
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["prometheus"]
