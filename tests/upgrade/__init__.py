"""Stores that earlier versions wrote, opened by this one."""
