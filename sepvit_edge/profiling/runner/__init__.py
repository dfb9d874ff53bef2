"""The on-device runner: check and time one package where this code runs.

`sepvit_edge.profiling.runner_file` zips this folder into one file, which runs as

    python runner.pyz PACKAGE --threads 4

on any device with Python 3.9, numpy and the package's runtime. So the code here is valid Python
3.9, and of SepViT-Edge it imports itself and `sepvit_edge.machine` only, which is in the zip too.
It prints one JSON document (export/profile-2.4.schema.json).

A package is not timed if its files were changed, or if its golden vectors give other logits on the
device. The golden vectors and each cold start run in separate processes, so that none disturbs the
next; warm-up, timed runs, memory, operations, roofs and the sustained run follow in one process.
"""
