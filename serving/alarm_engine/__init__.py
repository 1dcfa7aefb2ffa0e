"""The alarm engine: judges every machine, moves the alarms, tells the pager."""
