"""A simulated Scaleway; read routes.py first. Here stands what a command line may know without its web server."""

DEFAULT_PORT = 8990
DEFAULT_SPEED = 60.0
"""Simulated seconds in a real one: a server runs a third of a second after its power came on."""
