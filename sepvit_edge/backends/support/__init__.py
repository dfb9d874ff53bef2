"""What several runtimes share: cache, toolchain environments, ONNX files, evaluators, workers."""
