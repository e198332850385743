"""The vm level: containers in utility VMs of their own."""
