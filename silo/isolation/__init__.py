"""The isolation levels: process (crun), later vm (QEMU)."""
