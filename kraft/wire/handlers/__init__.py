"""The handlers of Kafka's APIs: one module per subject, loaded when it is first asked."""
