"""What a broker does with its replicas."""
