"""The shim: one service object behind thin surfaces."""
