"""Customer data → readings and events: `load` checks files, `publish` or `append_history` sends."""

from aegisops.importers.bulk import Appended, append_history
from aegisops.importers.mapping import Mapping, find_mapping, load_mapping
from aegisops.importers.publish import ConsumerGroups, Published, publish
from aegisops.importers.reader import Imported, load
from aegisops.importers.registration import register

__all__ = [
    "Appended",
    "ConsumerGroups",
    "Imported",
    "Mapping",
    "Published",
    "append_history",
    "find_mapping",
    "load",
    "load_mapping",
    "publish",
    "register",
]
