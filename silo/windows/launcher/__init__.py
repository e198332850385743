"""The resident launcher of Windows containers: C sources, and how they are built."""
