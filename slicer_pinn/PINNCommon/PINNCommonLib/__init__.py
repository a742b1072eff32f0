"""Shared by the PINN modules; imports nothing until a part of it is asked for."""
