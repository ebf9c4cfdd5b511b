"""The bytes of partitions, and their replication: batches, log storage, ISR, fetching."""
