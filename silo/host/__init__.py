"""The only layer that touches the machine: processes, mounts, namespaces, cgroups, probes."""
