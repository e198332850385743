"""The Linux personality: Docker's words for Linux programs become plans."""

from silo.linux.personality import LinuxPersonality

__all__ = ["LinuxPersonality"]
