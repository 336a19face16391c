"""The demo: SmolLM2-135M-Instruct as a Triton model, watched by tcd at every generation step."""
