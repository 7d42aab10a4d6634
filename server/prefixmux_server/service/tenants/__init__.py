"""Whose request it is, what that tenant may have, and what it has used."""
