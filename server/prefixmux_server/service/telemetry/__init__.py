"""What the server tells of its work: metrics, timelines, the live batch."""
