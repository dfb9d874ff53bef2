# CPU only: docker build -t sepvit-edge . && docker run --rm -v "$PWD:/work" sepvit-edge export --target openvino
FROM python:3.11-slim-bookworm

# torch without CUDA, in the version that the runtimes are pinned to
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch==2.13.0 --index-url "$TORCH_INDEX"

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY sepvit_edge sepvit_edge
COPY export export
COPY profiles profiles
RUN pip install --no-cache-dir '.[openvino,onnxruntime]' && rm -rf /src

RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["sepvit-edge"]
CMD ["--help"]
