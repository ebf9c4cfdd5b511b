"""Random load and random faults until the time is up: stories that nobody thought of."""
