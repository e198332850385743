"""Whole guests: a disk that the user brings, with a system of its own on it, run as a virtual machine."""
