"""What tenants store: uploads, versions, pins, and their upkeep."""
