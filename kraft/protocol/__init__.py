"""What clients and nodes both have to know of Kafka's protocol: error codes, record batches, the partitioner.

The lowest layer: it imports nothing else of this project, and all that reads or writes Kafka's bytes imports it.
"""
