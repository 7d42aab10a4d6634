"""What `prefixmux doctor` looks at, one noun per module; each yields findings and raises
nothing."""
