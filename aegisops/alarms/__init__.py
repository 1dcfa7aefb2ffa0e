"""Alarms after ISA-18.2: lifecycle, conditions, journal, floods, figures. Pure; time comes in.

Entries of the master database are declared in machine classes (aegisops.machines.alarms) and, for
the product's own parts, in system.toml. Redis: aegisops.alarm_store. Who evaluates: serving.
"""
