"""The engine in a process of its own: its two pipes, what goes over them, its life."""
