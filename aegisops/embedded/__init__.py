"""What the quick start runs instead of real services: broker, Redis, registry, supervisor."""
