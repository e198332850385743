"""Building from Debian packages: which mirror, which packages, what a build leaves behind."""
