"""From a history and what else is known of a run to a verdict for every record."""
