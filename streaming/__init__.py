"""The stream applications: lake writer and feature worker, with their sinks beside them."""
