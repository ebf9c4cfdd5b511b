"""The replicas of a broker: roles, produce, fetch, failures."""
