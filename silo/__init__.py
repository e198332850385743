"""Silo: a container engine for Linux hosts that runs Windows and Linux programs."""

__version__ = "0.1.0"
