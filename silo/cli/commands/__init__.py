"""The commands, a module for each kind; each holds COMMANDS, whose rows `silo.cli.index` names."""
