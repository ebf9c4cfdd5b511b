"""One cluster under load and random faults for minutes or hours, then healed, and every record is judged."""
