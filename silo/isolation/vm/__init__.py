"""The VM level: a container in a small virtual machine of its own, run by QEMU."""
