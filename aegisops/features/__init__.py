"""The one feature algebra: tiles, windows, definitions; `online` and `batch` only drive it."""
