from tcd.triton.multivariate import Multivariate as TritonPythonModel  # noqa: F401 - Triton looks for this name
