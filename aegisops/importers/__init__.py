"""Customer data → readings and events: `load` checks files, `publish` or `append_history` sends."""

from aegisops.importers.mapping import Mapping, find_mapping, load_mapping
from aegisops.importers.reader import Imported, load

__all__ = ["Imported", "Mapping", "find_mapping", "load", "load_mapping"]
