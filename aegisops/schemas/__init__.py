"""Contracts: `tables.py` declares every Delta table, `avro.py` and *.avsc every Kafka message."""
