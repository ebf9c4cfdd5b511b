"""One cluster under load and random faults for minutes or hours; at the end whole again, and every record judged."""
