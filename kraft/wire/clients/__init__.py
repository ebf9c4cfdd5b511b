"""What Kafka clients ask of a broker on its Kafka port: one module per subject, loaded when the first client asks."""
