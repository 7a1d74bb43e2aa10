"""How direct notices come in."""
