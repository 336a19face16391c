from tcd.triton.signals import Signals as TritonPythonModel  # noqa: F401 - Triton looks for this name
