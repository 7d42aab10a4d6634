"""One generation, from what was asked to what is answered."""
