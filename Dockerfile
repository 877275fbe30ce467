# recurra as an image: docker build -t recurra .     (--build-arg TORCH=cu130 for an NVIDIA GPU)
FROM python:3.12-slim

ARG TORCH=cpu
ENV PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
    NUMBA_CACHE_DIR=/data/.numba-cache

WORKDIR /opt/recurra
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
COPY engine engine
COPY kernels kernels
COPY connectors connectors
COPY simulations simulations
# torch's own builds have other hashes than those that the lock knows
RUN pip install --no-cache-dir "uv>=0.9,<1" \
 && uv pip install --system --no-cache --torch-backend="$TORCH" --no-verify-hashes --constraints requirements.lock .

RUN useradd --create-home recurra && mkdir /data && chown recurra /data
USER recurra
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=90s \
  CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=2)"
ENTRYPOINT ["recurra"]
CMD ["run", "--data", "/data", "--api", "0.0.0.0:8000"]
