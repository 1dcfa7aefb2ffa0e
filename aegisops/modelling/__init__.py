"""From feature rows and events to an evaluated, calibrated model bundle. No outside system."""
