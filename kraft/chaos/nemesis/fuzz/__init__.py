"""Random stories: random load and random faults until the time is up."""
