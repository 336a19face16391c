from tcd.triton.fused import Fused as TritonPythonModel  # noqa: F401 - Triton looks for this name
