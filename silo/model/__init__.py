"""Frozen values shared by all layers: ids, container, image, mount, network; no I/O."""
