from tcd.demo.model import DemoModel as TritonPythonModel  # noqa: F401 - Triton looks for this name
