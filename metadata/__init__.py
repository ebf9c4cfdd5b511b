"""The cluster's metadata and its owners: records, image, controller decisions, the metadata quorum."""
