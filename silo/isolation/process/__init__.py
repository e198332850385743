"""Process isolation: crun, OCI spec, cgroups, seccomp, the keeper."""
