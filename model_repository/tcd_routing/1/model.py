from tcd.triton.routing import Routing as TritonPythonModel  # noqa: F401 - Triton looks for this name
