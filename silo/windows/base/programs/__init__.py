"""Small Windows programs of Silo's own, in place of ones that Wine only pretends to have."""

from silo.windows.base.programs.compile import build_programs

__all__ = ["build_programs"]
