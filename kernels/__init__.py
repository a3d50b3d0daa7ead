"""The kernels in Triton, one op a file, imported as `nondet_probe.kernels`: docs/triton.md.

Empty on purpose, and never raising: some libraries import whatever is called `kernels`.
"""

__all__: list[str] = []
