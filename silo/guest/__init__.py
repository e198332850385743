"""The agent inside a utility VM: runs one container with crun for a host that talks to it over a virtio-serial port.

Standard library only, started as `python3 -I -S …/silo/guest/agent.py`. What it needs of Silo is this folder and FILES. An image
should hold them compiled (`python3 -m compileall`), and a template is best saved after one complete run: what has been imported
by then costs no clone anything. The protocol is docs/guest-protocol.md.
"""

BOOT = "silo/guest/boot.py"
"""Becomes /silo/agent in the image; everything else lies below /silo/lib."""

ENTRY = "/silo/entry"
"""In the image: the program that waits in a Linux container begun ahead (silo/linux/entry)."""

FILES = (
    "silo/__init__.py",
    "silo/errors.py",
    "silo/model/__init__.py",
    "silo/model/guest_frames.py",
    "silo/model/leftovers.py",
    "silo/model/windows_names.py",
    "silo/model/windows_paths.py",
    "silo/model/windows_spelling.py",
)
"""What an image of the agent holds besides this folder, relative to the checkout."""
