"""The utility VM image: the small Linux that containers behind the hyperv boundary run in."""
