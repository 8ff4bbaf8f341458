"""How fast napari-lgg-seg is, compared with Keras, plain PyTorch, ONNX Runtime and the original study's code.

``python benchmarks/speed measure`` runs the benchmarks, ``python benchmarks/speed show`` prints their tables.
"""
