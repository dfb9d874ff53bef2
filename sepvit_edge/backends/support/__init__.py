"""Code of several runtimes: cache, toolchain environments, ONNX files, evaluators, workers."""
