"""What the cluster knows, and who may change it: records, image, controller decisions, the metadata quorum."""
