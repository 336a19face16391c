"""The HTTP surface: raw ASGI for the hot routes, FastAPI for the rest."""
