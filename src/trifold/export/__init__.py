"""Networks written as files that other engines run, and the gate that each file must pass."""
