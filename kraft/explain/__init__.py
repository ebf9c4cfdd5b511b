"""Why is it so: facts that nodes report of themselves, and pure decisions that make an explanation of them."""
