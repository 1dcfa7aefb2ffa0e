"""The plant's side of the gateway: one edge module per protocol, and what is pure about each."""
