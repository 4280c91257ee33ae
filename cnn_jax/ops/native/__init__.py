"""Kernels compiled from C++, called by XLA: oneDNN's convolutions, an optional extra.

`problem` says a convolution in oneDNN's terms, `build` compiles the source that lies here,
`library` loads the result. Nothing is built or loaded before a convolution asks for it.
"""
