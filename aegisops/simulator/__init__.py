"""A seeded fleet of CNC spindles: history in bulk, live readings that continue it, and the truth.

The order of the data's way: fleet → duty → wear → physics → sensors (faults) → history | live.
Every random number comes from `fleet.generator(seed, machine, stream, block)`, so the same seed
gives the same bytes whatever the number of machines, the chunking or the order of the calls.
"""

from aegisops.simulator.fleet import FleetPlan, Machine, fleet_of
from aegisops.simulator.history import Chunk, history

__all__ = ["Chunk", "FleetPlan", "Machine", "fleet_of", "history"]
