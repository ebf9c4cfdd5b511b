"""The share coordinator: what share groups have acknowledged, durable in `__share_group_state` (KIP-932)."""
