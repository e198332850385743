"""The use cases: container lifecycle, exec, logs, events, recovery; and the ports they need."""
