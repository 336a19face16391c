from tcd.triton.detector import Detector as TritonPythonModel  # noqa: F401 - Triton looks for this name
