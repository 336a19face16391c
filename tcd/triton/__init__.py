"""The Triton side: model classes, configurations, the launcher and the clients.

Nothing is imported here: the models run inside Triton's Python stubs, the clients inside the shim, and
neither should pay for the other.
"""

from __future__ import annotations
