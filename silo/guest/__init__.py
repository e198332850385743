"""The agent inside a utility VM: runs one container with crun for a host that talks to it over a virtio-serial port.

An image should hold it compiled (python3 -m compileall), and a template is best saved after one complete run: what is imported then
costs no clone anything. Standard library only, started as `python3 -I -S …/silo/guest/agent.py`. What it needs of Silo is this folder, `silo/errors.py` and
`silo/model/guest_frames.py` (with their packages' `__init__.py`). The protocol is docs/guest-protocol.md.
"""

FILES = ("silo/__init__.py", "silo/errors.py", "silo/model/__init__.py", "silo/model/guest_frames.py")
"""What an image of the agent holds besides this folder, relative to the checkout."""
