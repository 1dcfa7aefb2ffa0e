"""The prediction API. `app` wires, `prediction` decides, `routes` speak HTTP; no training here."""
