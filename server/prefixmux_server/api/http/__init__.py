"""Around every route: the socket, the frame, bodies in, events and errors out."""
