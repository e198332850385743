"""The hyperv level: containers in utility VMs of their own, run by QEMU."""
