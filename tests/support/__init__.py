"""What several test packages share: tiny models, engines without a process, reference data."""
