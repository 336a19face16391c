from tcd.triton.spotlight import Spotlight as TritonPythonModel  # noqa: F401 - Triton looks for this name
